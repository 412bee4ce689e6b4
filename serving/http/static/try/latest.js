// At most one request is on its way, so that no answer can be overtaken by a newer one.

/** Return a function to call at each change; `ask` runs again if that is during its run. */
export function askForLatest(ask) {
  let changed = false;
  let running = false;
  return async function change() {
    changed = true;
    if (running) return;
    running = true;
    try {
      while (changed) {
        await new Promise(requestAnimationFrame); // several events of one movement are one request
        changed = false;
        await ask();
      }
    } finally {
      running = false;
    }
  };
}
