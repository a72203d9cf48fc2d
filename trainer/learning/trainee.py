"""What a recipe trains: a model with its tokenizer and chat format, and the engines that sample it."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ...envs.runs.files import write_json
from ...errors import ChatFormatError, ConfigError
from ...model.arithmetic import warn_where_slow
from ...model.chat.cwm import CwmParser, CwmRenderer
from ...model.chat.protocols import Parser, Renderer
from ...model.chat.settings import checkpoint_settings
from ...model.checkpoint import check_shape, load_checkpoint, load_config, load_decoder
from ...model.config import preset
from ...model.decoder import Decoder
from ...model.engine.generator import Generator
from ...model.engine.huggingface import HuggingFaceEngine
from ...model.families.find import eos_token_ids, model_type, why_not_ours
from ...model.format import known_ids, load_tokenizer
from ...model.huggingface import HuggingFaceDecoder
from ...model.lora import AnyDecoder, add_adapters, copy_trained, has_adapters, save_adapters
from ...model.tokenizer import Tokenizer, train_tokenizer
from ...model.trained import ADAPTER_FOLDER, export, load_exported, save_beside, stream_pieces
from ...model.weights.checksums import add_sum
from ...model.weights.folders import written_whole
from ..recipe.model import ModelConfig

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Stored:
    """Where the weights of a trainee are that no process has whole.

    Attributes:
        checkpoint: the folder that has them, in any format; with adapters what those have learned is in it too.
        base: the folder that has them below adapters, where there are some.
        publish: while ranks train them: writes what they have now, see ``ranks.sharded.ShardedLearning.publish``.
    """

    checkpoint: Path
    base: Path | None = None
    publish: Callable[..., None] | None = None

    @property
    def adapters(self) -> Path | None:
        """The folder of the checkpoint's adapters; None: there are none, or they have learned nothing yet."""
        return None if self.base in (None, self.checkpoint) else self.checkpoint / ADAPTER_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainee:
    """A model to train.

    Attributes:
        config: of the recipe.
        decoder: what is trained; where the weights are ``stored``, its shape alone, on the meta device.
        tokenizer: ours for CWM's decoder, else transformers'.
        renderer, parser: of its chat format.
        seed: of the engines' own draws.
        stored: where its weights are; None: in the decoder.
    """

    config: ModelConfig
    decoder: AnyDecoder
    tokenizer: Any
    renderer: Renderer
    parser: Parser
    seed: int
    stored: Stored | None = None

    def tokenizer_of(self, checkpoint: Path) -> Any:
        """The tokenizer of another checkpoint, read as the trainee's own was. Raises CheckpointError."""
        return Tokenizer.load(checkpoint) if isinstance(self.tokenizer, Tokenizer) else load_tokenizer(checkpoint)

    @property
    def cwm_tokenizer(self) -> Tokenizer:
        """Raises ConfigError where the model is none of CWM's: traces are written in reserved tokens."""
        if not isinstance(self.tokenizer, Tokenizer):
            raise ConfigError(
                f"midtrain writes traces in CWM's reserved tokens, and {self.config.checkpoint} has none; remove it"
            )
        return self.tokenizer

    def engine(
        self, max_batch: int, decoder: AnyDecoder | None = None, *, num_threads: int | None = None
    ) -> Generator | HuggingFaceEngine:
        """An engine over the trained weights themselves, or over those of a copy.

        Args:
            num_threads: torch's, of CWM's engine; None: as many as training has.
        """
        decoder = self.decoder if decoder is None else decoder
        if isinstance(decoder, HuggingFaceDecoder):
            return HuggingFaceEngine(
                decoder.model,
                max_batch=max_batch,
                max_context=self.config.max_context,
                seed=self.seed,
                num_ids=decoder.num_ids,
            )
        device = decoder.head.weight.device
        return Generator(
            decoder,
            max_batch=max_batch,
            max_context=self.config.max_context,
            seed=self.seed,
            device=device,
            num_threads=num_threads,
        )

    def text_of(self, token_ids: Sequence[int]) -> str:
        """Text of ids, reserved tokens spelled out, for people."""
        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.decode(token_ids)
        text = self.tokenizer.decode(list(token_ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # SentencePiece leaves out the blank that a text's first token begins with.
        first = self.tokenizer.convert_ids_to_tokens(list(token_ids[:1]))
        return f" {text}" if first and str(first[0]).startswith("\u2581") and not text.startswith(" ") else text

    def copied(self) -> "Trainee":
        """The same with trained weights of its own."""
        return replace(self, decoder=copy_trained(self.decoder))

    def save(
        self,
        path: Path,
        environments: Mapping[str, Mapping[str, Any]],
        *,
        dtype: torch.dtype | None = None,
        sums: bool = True,
    ) -> None:
        """Write a checkpoint that the next stage, evaluations and transformers read.

        Args:
            environments: id -> arguments that it was trained with; kept beside the model.
            dtype: of the weights in it, for CWM's decoder; None: as they are.
            sums: record checksums of its files, which every later reading compares.
        Raises:
            CheckpointError: it could not be written.
        """
        if self.stored is None:
            export(path, self.decoder, self.tokenizer, base=self.config.checkpoint, dtype=dtype, sums=sums)
        else:
            self._export_stored(path, self.stored, dtype, sums)
            self._export_adapters(path, self.stored, sums)
        self._write_settings(path, environments)
        if sums:
            add_sum(path, "verigym.json")

    def publish(self, path: Path, *, dtype: torch.dtype | None = None, whole: bool = True) -> None:
        """Write the weights of the moment for engines to read: ``save``, in the form that is written the fastest.

        Args:
            whole: write them whole, also where what has changed since the last publish beside it would do.
        Raises:
            CheckpointError: they could not be written.
        """
        if self.stored is None or self.stored.publish is None:
            self.save(path, {}, dtype=dtype, sums=False)
            return
        with written_whole(path, sums=False) as partial:
            self._write_shards(partial, self.stored.publish, dtype, name=path.name, whole=whole)

    def save_format(self, folder: Path) -> None:
        """Write the tokenizer and the chat format alone, for whoever speaks for the model without its weights."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._write_beside(folder, None)

    def _export_stored(self, path: Path, stored: Stored, dtype: torch.dtype | None, sums: bool) -> None:
        if stored.publish is None:
            stream_pieces(stored.checkpoint, path, self.decoder, dtype=dtype, sums=sums)
            return
        shards = path.with_name(f".{path.name}.shards")
        shutil.rmtree(shards, ignore_errors=True)
        try:
            self._write_shards(shards, stored.publish, dtype)
            stream_pieces(shards, path, self.decoder, dtype=None, sums=sums)
        finally:
            shutil.rmtree(shards, ignore_errors=True)

    def _export_adapters(self, path: Path, stored: Stored, sums: bool) -> None:
        """Beside the whole model: those that ranks have told, or those of the checkpoint that it was made of."""
        if stored.publish is not None and has_adapters(self.decoder):
            with written_whole(path / ADAPTER_FOLDER, sums=sums) as partial:
                save_adapters(partial, self.decoder, base=self.config.checkpoint)
        elif stored.adapters is not None:
            shutil.copytree(stored.adapters, path / ADAPTER_FOLDER, dirs_exist_ok=True)

    def _write_shards(
        self, folder: Path, publish: Callable[..., None], dtype: torch.dtype | None, **options: Any
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        publish(folder, dtype, **options)
        self._write_beside(folder, dtype)

    def _write_beside(self, folder: Path, dtype: torch.dtype | None) -> None:
        save_beside(folder, self.decoder, self.tokenizer, dtype or self.decoder.head.weight.dtype)
        self._write_settings(folder, {})

    def _write_settings(self, path: Path, environments: Mapping[str, Mapping[str, Any]]) -> None:
        settings: dict[str, Any] = {"environments": environments}
        if isinstance(self.renderer, CwmRenderer):
            settings["renderer"] = {"announce_tools": False}
        elif self.config.tools != "native" or self.config.chat_template_kwargs:
            settings["template"] = {"tools": self.config.tools, "options": self.config.chat_template_kwargs}
        write_json(path / "verigym.json", settings, indent=None)

    def load(self, path: Path) -> None:
        """Take the weights of a checkpoint that ``save`` wrote. Raises CheckpointError."""
        if self.stored is None:
            load_exported(path, self.decoder)
            return
        assert self.stored.publish is None, "ranks train the weights; they cannot be replaced under them"
        self.stored.checkpoint = path


def open_trainee(
    config: ModelConfig,
    texts: Callable[[Parser], Iterable[str]],
    *,
    seed: int,
    device: str | None = None,
    store: Path | None = None,
) -> Trainee:
    """The recipe's model: its checkpoint, or CWM's architecture with random weights and a tokenizer trained here.

    Args:
        texts: what a tokenizer is trained on, as the parser of the chat format writes it.
        device: of the model; None: a GPU where there is one.
        store: have no weights here: they stay in the recipe's checkpoint, or, where they are random, are written into
            this folder, unless it is there.
    Raises:
        CheckpointError: the checkpoint is missing or broken. ConfigError: it cannot be trained so.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if store is not None:
        where = torch.device("cpu" if config.checkpoint is None else "meta")
    if config.checkpoint is None or model_type(config.checkpoint) == "cwm":
        trainee = _open_cwm(config, texts, seed, where)
    else:
        trainee = _open_family(config, config.checkpoint, seed, where)
    if config.lora is not None:
        add_adapters(trainee.decoder, **config.lora.model_dump(), seed=seed)
    return trainee if store is None else _stored(trainee, store)


def _stored(trainee: Trainee, store: Path) -> Trainee:
    """The same without weights of its own, but for adapters, which are small."""
    checkpoint = trainee.config.checkpoint
    if checkpoint is None and not store.exists():
        trainee.save(store, {})
    base = None if trainee.config.lora is None else checkpoint
    if base is None:
        trainee.decoder.to("meta")
    return replace(trainee, stored=Stored(checkpoint or store, base))


def _shape_of(checkpoint: Path) -> Decoder:
    """A checkpoint's decoder on the meta device: no weight of it is read."""
    config = load_config(checkpoint)
    with torch.device("meta"):
        return Decoder(config)


def _open_cwm(
    config: ModelConfig, texts: Callable[[Parser], Iterable[str]], seed: int, device: torch.device
) -> Trainee:
    parser = CwmParser()
    if config.chat_template is not None:
        raise ConfigError(f"{config.checkpoint} speaks CWM's format, and takes no model.chat_template; remove it")
    if config.checkpoint is not None:
        if device.type == "meta":
            decoder, tokenizer = _shape_of(config.checkpoint), Tokenizer.load(config.checkpoint)
        else:
            decoder, tokenizer = load_checkpoint(config.checkpoint, device)
        if "preset" in config.model_fields_set:
            check_shape(config.checkpoint, preset(config.preset))
        decoder = decoder.to(_dtype(config, device))
        decoder.config = decoder.config.with_known_ids(tokenizer.vocab_size)
    else:
        tokenizer = train_tokenizer(texts(parser), config.vocab_size)
        shape = preset(config.preset, vocab_size=tokenizer.vocab_size, **config.changes)
        decoder = Decoder(shape, seed=seed).to(device)
    decoder.use_attention(config.attention)
    # Tools are the same in every episode of a family: a tiny model learns them from the demonstrations.
    renderer = CwmRenderer(tokenizer, announce_tools=False)
    return Trainee(config=config, decoder=decoder, tokenizer=tokenizer, renderer=renderer, parser=parser, seed=seed)


def _open_family(config: ModelConfig, checkpoint: Path, seed: int, device: torch.device) -> Trainee:
    """A model that is not CWM: in our decoder where that knows its family, else in transformers' own code."""
    from ...model.chat.huggingface import HuggingFaceRenderer

    reason = why_not_ours(checkpoint)
    if config.attention != "auto" and reason is not None:
        raise ConfigError(f"model.attention is of our own decoder, which {checkpoint} does not run on ({reason})")
    if "preset" in config.model_fields_set:
        if config.preset.startswith("cwm-"):
            raise ConfigError(
                f"model.preset names a shape of CWM, and {checkpoint} is a {model_type(checkpoint)}; remove it"
            )
        check_shape(checkpoint, preset(config.preset))
    if not any(checkpoint.glob("tokenizer*")):
        raise ConfigError(f"{checkpoint} has no tokenizer; copy the files that came with the model")
    tokenizer = load_tokenizer(checkpoint, config.chat_template)
    config = _with_settings(config, checkpoint)
    try:
        renderer = HuggingFaceRenderer(
            tokenizer,
            eos_token_ids=eos_token_ids(checkpoint),
            tools=config.tools,
            options=config.chat_template_kwargs,
        )
    except ChatFormatError as error:
        raise ConfigError(f"{checkpoint} cannot be trained in conversations: {error}") from error
    if reason is None:
        whole = _shape_of(checkpoint) if device.type == "meta" else load_decoder(checkpoint, device)
        decoder: AnyDecoder = whole.to(_dtype(config, device))
        decoder.use_attention(config.attention)
        decoder.config = decoder.config.with_known_ids(known_ids(tokenizer))
    elif device.type == "meta":
        decoder = HuggingFaceDecoder.shape_of(checkpoint, _dtype(config, device))
        decoder.num_ids = known_ids(tokenizer)
    else:
        logger.warning("%s is trained in transformers' own code: %s", checkpoint, reason)
        decoder = HuggingFaceDecoder.load(checkpoint, dtype=_dtype(config, device), local_files_only=True).to(device)
        decoder.num_ids = known_ids(tokenizer)
    return Trainee(
        config=config, decoder=decoder, tokenizer=tokenizer, renderer=renderer, parser=renderer.parser, seed=seed
    )


def _with_settings(config: ModelConfig, checkpoint: Path) -> ModelConfig:
    """With what the checkpoint's verigym.json says of its template, where the recipe says nothing."""
    settings = checkpoint_settings(checkpoint).template
    tools = config.tools if "tools" in config.model_fields_set else settings.tools
    options = settings.options | config.chat_template_kwargs
    return config.model_copy(update={"tools": tools, "chat_template_kwargs": options})


def _dtype(config: ModelConfig, device: torch.device) -> torch.dtype:
    dtype = torch.bfloat16 if config.dtype == "bfloat16" else torch.float32
    warn_where_slow(dtype, device, "model.dtype = 'bfloat16' ('float32' takes twice the memory)")
    return dtype
