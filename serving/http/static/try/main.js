// The page: it builds a form from /docs.json and /model, and keeps the prediction up to date.

import { curlCommand, readRecord, writeRecord } from "./address.js";
import { Card } from "./card.js";
import { Curves, effectOf } from "./curves.js";
import { describeFeatures, exampleOf, lookUp } from "./features.js";
import { askForLatest } from "./latest.js";
import { predictionFormat } from "./numbers.js";
import { retryUntilAnswered, showStatus } from "./retry.js";
import { ServiceError, needsKey, predictionPaths, request, urlOf } from "./service.js";

const SETTLE_MS = 400; // after the last change
const $ = (id) => document.getElementById(id);

/** Return the line that says why there is no prediction. */
function statusOf(error, cards) {
  if (!(error instanceof ServiceError)) return `This page failed: ${error.message}`;
  const { message, fields } = error;
  const names = Object.keys(fields);
  if (!names.length) return message;
  const others = names.filter((name) => !cards.has(name)).map((name) => fields[name]);
  return ["No prediction: see the marked fields.", ...others].join(" ");
}

class Page {
  constructor(openapi, model) {
    this.openapi = openapi;
    this.paths = predictionPaths(openapi);
    this.features = describeFeatures(model);
    this.curves = new Curves(this.features, this.paths.array, this.paths.maxRecords);
    this.format = predictionFormat(model.target_std);
    this.requestUpdate = askForLatest(() => this.ask());
    this.cards = new Map(
      this.features.map((feature) => [
        feature.name,
        new Card(feature, (...change) => this.change(...change)),
      ]),
    );
    $("cards").append(...[...this.cards.values()].map((card) => card.node));
    this.describe(openapi, model);
    this.listen();
    this.loadRecord(readRecord(this.features));
  }

  describe({ info }, { tag, target }) {
    const title = info.title.replaceAll("_", " ");
    $("title").textContent = title.charAt(0).toUpperCase() + title.slice(1);
    document.title = `Try ${title}`;
    $("description").textContent = info.description.split("\n\n")[0];
    $("model").textContent = `Model ${tag}`;
    $("target").textContent = target.description || target.name;
    $("unit").textContent = target.unit ?? "";
  }

  listen() {
    $("reset").addEventListener("click", () => this.loadRecord({}));
    $("sort").addEventListener("click", () => {
      this.sort();
      $("curves-title").focus(); // the button is hidden now
    });
    $("copy").addEventListener("click", () => this.copy());
    addEventListener("hashchange", () => this.loadRecord(readRecord(this.features)));
    let { innerWidth } = window;
    addEventListener("resize", () => {
      if (innerWidth !== window.innerWidth && this.answer) this.draw(this.answer);
      innerWidth = window.innerWidth;
    });
  }

  /** Show the example record with some other values. */
  loadRecord(values) {
    this.record = Object.create(null); // without a prototype, `__proto__` is a name like others
    for (const feature of this.features) this.record[feature.name] = exampleOf(feature);
    Object.assign(this.record, values);
    for (const [name, card] of this.cards) card.setValue(this.record[name]);
    this.toSort = true;
    this.update();
  }

  change(name, value) {
    if (value === undefined) delete this.record[name];
    else this.record[name] = value;
    this.update();
  }

  update() {
    setBusy(true);
    this.requestUpdate();
    this.announceSoon();
  }

  /** Write the address, and let screen readers read the prediction, once nothing changes. */
  announceSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      writeRecord(this.record);
      if (isBusy()) return;
      const text = this.hasPrediction ? document.querySelector(".prediction").textContent : "";
      if ($("announcement").textContent !== text) $("announcement").textContent = text;
    }, SETTLE_MS);
  }

  async ask() {
    try {
      this.show(await retryUntilAnswered(() => this.curves.predict({ ...this.record })));
    } catch (error) {
      await this.showRefusal(error);
    }
  }

  show(answer) {
    this.answer = answer;
    this.showPrediction(answer.prediction);
    this.showMessages({});
    $("cards").classList.remove("stale");
    this.draw(answer);
    const isInUse = $("cards").contains(document.activeElement); // moving it would end its focus
    if (this.toSort && !isInUse) this.sort();
    this.toSort = false;
    $("sort").hidden = this.isSorted();
    this.finish(answer.record);
  }

  /** End the update for a record; the page stays busy if the record has changed since. */
  finish(record) {
    setBusy(JSON.stringify(record) !== JSON.stringify(this.record));
    this.announceSoon();
  }

  /** Show a prediction, or that there is none. */
  showPrediction(prediction) {
    this.hasPrediction = prediction !== null;
    $("prediction").textContent = prediction === null ? "–" : this.format(prediction);
    $("prediction").dataset.value = prediction ?? "";
  }

  draw({ record, prediction, curves }) {
    this.showOmitted();
    const all = [prediction, ...[...curves.values()].flat().map((point) => point.prediction)];
    const scale = { prediction, domain: [Math.min(...all), Math.max(...all)], format: this.format };
    const width = $("cards").querySelector("svg")?.clientWidth; // of all charts: measured once
    for (const [name, card] of this.cards) {
      const points = curves.get(name);
      if (points) card.draw({ points, value: record[name], ...scale, width });
      else card.clear();
    }
  }

  /** Say how many features have no chart because a request may have too few records. */
  showOmitted() {
    const count = this.curves.nOmitted();
    const subject = count === 1 ? "1 feature has" : `${count} features have`;
    $("omitted").hidden = !count;
    $("omitted").textContent =
      `${subject} no chart: this service accepts too few records per request.`;
  }

  /** Predict the record alone, and say why there are no curves; otherwise why it is refused. */
  async showRefusal(refusal) {
    const record = { ...this.record };
    $("cards").classList.add("stale");
    try {
      if (!(refusal instanceof ServiceError) || refusal.status === 401) throw refusal;
      const { prediction } = await retryUntilAnswered(() => request(this.paths.single, record));
      this.showPrediction(prediction);
      this.showMessages({});
      const isUnpredictable = refusal.status === 422; // its message has numbers of points
      const reason = isUnpredictable ? "The model can't predict their points" : refusal.message;
      showStatus(`No curves for this record: ${reason}`, true);
    } catch (error) {
      this.showPrediction(null);
      this.showMessages(error.fields);
      showStatus(statusOf(error, this.cards), true);
      if (!(error instanceof ServiceError)) throw error;
    } finally {
      this.finish(record);
    }
  }

  /** Show each message next to the field that it names. */
  showMessages(messages) {
    for (const [name, card] of this.cards) card.showError(lookUp(messages, name));
  }

  /** Return the names of the features, starting with the largest effect on the prediction. */
  order() {
    const effect = ({ name }) => effectOf(this.answer.curves.get(name) ?? []);
    return [...this.features].sort((a, b) => effect(b) - effect(a)).map(({ name }) => name);
  }

  isSorted() {
    return this.order().every((name, n) => this.cards.get(name).node === $("cards").children[n]);
  }

  sort() {
    $("cards").append(...this.order().map((name) => this.cards.get(name).node));
    $("sort").hidden = true;
  }

  async copy() {
    $("curl").value = curlCommand(urlOf(this.paths.single), this.record, needsKey(this.openapi));
    $("curl-message").textContent = await copyText($("curl").value);
    $("curl-dialog").showModal();
    $("curl").select();
  }
}

/** Copy a text; return a sentence that says whether it is copied. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return "The command is copied.";
  } catch {
    // Without TLS a page may not use the clipboard.
    return "Copying is blocked by the browser. Select the command and copy it.";
  }
}

function setBusy(busy) {
  $("cards").setAttribute("aria-busy", String(busy));
}

function isBusy() {
  return $("cards").getAttribute("aria-busy") === "true";
}

try {
  const openapi = await retryUntilAnswered(() => request("docs.json"));
  new Page(openapi, await retryUntilAnswered(() => request("model")));
} catch (error) {
  showStatus(error.message, true);
  setBusy(false);
  throw error;
}
