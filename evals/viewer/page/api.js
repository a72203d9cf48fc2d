// Questions to the server, and a look now and then whether a run has something new.

export async function ask(name, parameters = {}, signal) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(key, value);
  }
  const address = `api/${name}?${query}`;
  const early = globalThis.early.get(address); // asked by first.js
  globalThis.early.delete(address);
  const response = await (early ?? fetch(address, { signal }));
  const found = await response.json();
  if (signal?.aborted) throw new DOMException("the reader has left", "AbortError"); // one of first.js has no signal
  if (!response.ok) throw new Error(found.error ?? `the server answered ${response.status}`);
  return found;
}

const QUICK = 300, SLOW = 3000, AWAY = 1500;

// Calls `told(state)` at the first look and whenever an answer differs from the one before.
export function follow(run, signal, told) {
  let before = null;
  let timer = 0;
  const look = async () => {
    let pause = SLOW;
    if (!document.hidden) {
      try {
        const state = await ask("poll", { run }, signal);
        pause = ["running", "paused", "elsewhere"].includes(state.state) || state.behind ? QUICK : SLOW;
        const changed = before === null || ["episodes", "metrics", "state", "sign"].some((key) => before[key] !== state[key]);
        before = state;
        if (changed) await told(state);
      } catch (error) {
        if (signal.aborted) return;
        pause = AWAY;
        document.dispatchEvent(new CustomEvent("lost", { detail: String(error.message ?? error) }));
      }
    }
    if (!signal.aborted) timer = setTimeout(look, pause);
  };
  const shown = () => {
    if (!document.hidden) {
      clearTimeout(timer);
      look();
    }
  };
  document.addEventListener("visibilitychange", shown, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  look();
}
