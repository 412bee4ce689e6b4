// Repeat a request until it is answered: ask for the API key, and wait while the service is busy.

import { ServiceError, keepKey } from "./service.js";

const BUSY = [0, 408, 429, 502, 503, 504]; // the statuses after which to ask again
const FIRST_WAIT = 2; // seconds; each wait is twice as long, unless the service says Retry-After
const LONGEST_WAIT = 30; // seconds
const $ = (id) => document.getElementById(id);

/** Return the answer of `ask`, which is called again while the service is busy or wants a key. */
export async function retryUntilAnswered(ask) {
  let wait = FIRST_WAIT;
  for (;;) {
    try {
      const answer = await ask();
      showStatus("");
      return answer;
    } catch (error) {
      if (error.status === 401) {
        await askForKey();
      } else if (BUSY.includes(error.status)) {
        await pause(error.message, error.retrySeconds ?? wait);
        wait = Math.min(2 * wait, LONGEST_WAIT);
      } else {
        throw error;
      }
    }
  }
}

/** Show a line below the prediction. */
export function showStatus(text, isError = false) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

async function pause(message, seconds) {
  const reason = message.replace(/; try again.*/, "");
  showStatus(`${reason}. The page asks again in ${seconds} s.`);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

let hasGivenKey = false;

/** Let the user give an API key; throw if they close the dialog instead. */
async function askForKey() {
  const dialog = $("key-dialog");
  if (hasGivenKey) $("key-message").textContent = "The service does not accept this key.";
  dialog.returnValue = $("key").value = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  if (dialog.returnValue !== "use") {
    throw new ServiceError(401, "The service needs a key: reload this page to give one");
  }
  keepKey($("key").value.trim());
  hasGivenKey = true;
}
