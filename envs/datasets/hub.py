"""Rows of a dataset on the Hugging Face hub."""

from collections.abc import Sequence

from ...errors import ConfigError
from .files import SourceRow

HUB = "hub:"


def hub_rows(
    dataset: str,
    *,
    config: str | None = None,
    split: str = "train",
    revision: str | None = None,
    files: Sequence[str] | None = None,
    file_format: str = "json",
    remedy: str,
) -> list[SourceRow]:
    """All rows of one split.

    Args:
        dataset, config, split, revision: as ``datasets.load_dataset`` takes them.
        files: names in the dataset's repository, for one that comes with a loading script; of ``file_format``.
        remedy: what to do where the hub does not give them, for the message.
    Raises:
        ConfigError: the hub cannot be reached, or has no such dataset.
    """
    import datasets

    try:
        if files is None:
            table = datasets.load_dataset(dataset, config, split=split, revision=revision)
        else:
            at = f"@{revision}" if revision else ""
            named = [f"hf://datasets/{dataset}{at}/{file}" for file in files]
            table = datasets.load_dataset(file_format, data_files={split: named}, split=split)
        return [
            SourceRow(where=f"{dataset}, row {number}", value=dict(row))  # type: ignore[call-overload]
            for number, row in enumerate(table, start=1)
        ]
    except Exception as error:  # the hub's client raises classes of several libraries, by what failed
        told = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"dataset {dataset} cannot be loaded from the hub: {type(error).__name__}: {told}; {remedy}"
        ) from error


def rows_named(source: str) -> list[SourceRow]:
    """Rows of "hub:OWNER/NAME", "hub:OWNER/NAME/CONFIG" or "hub:OWNER/NAME/CONFIG/SPLIT" (default split: train).

    Raises:
        ConfigError: as ``hub_rows``; also where that is no name of a dataset.
    """
    parts = source.removeprefix(HUB).split("/")
    if not 2 <= len(parts) <= 4 or not all(parts):
        raise ConfigError(f"{source!r} names no dataset; write hub:OWNER/NAME, or hub:OWNER/NAME/CONFIG/SPLIT")
    owner, name, config, split = (*parts, None, None)[:4]
    return hub_rows(
        f"{owner}/{name}", config=config, split=split or "train", remedy="download it and give the file's path"
    )
