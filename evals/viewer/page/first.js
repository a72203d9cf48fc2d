// The first questions, asked while the modules are still being loaded; api.js takes the answers.

globalThis.early = new Map();
{
  const [path, query] = location.hash.replace(/^#\//, "").split("?");
  const [kind, run, tab, ...rest] = path.split("/");
  const ask = (name, parameters) => {
    const address = `api/${name}?${new URLSearchParams(parameters)}`;
    const answer = fetch(address);
    answer.catch(() => {}); // who takes it is told
    globalThis.early.set(address, answer);
  };
  const kept = Object.fromEntries(new URLSearchParams(query ?? ""));
  if (!path) ask("runs", {});
  else if (kind === "run" && run) {
    ask("run", { run });
    if (tab === "episodes" && kept.view !== "groups") ask("episodes", { run, ...kept, offset: 0, limit: 100 });
    else if (tab === "episode") ask("episode", { run, key: decodeURIComponent(rest.join("/")) });
    else if (!tab || tab === "curves" || tab === "engines") ask("metrics", { run });
  }
}
