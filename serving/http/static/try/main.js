// The page: it builds the form of what the service says of itself, and keeps the answer up to date.

import { curlCommand, readRecord, writeRecord } from "./address.js";
import { Card } from "./card.js";
import { Curves, effectOf } from "./curves.js";
import { describeFeatures, exampleOf } from "./features.js";
import { askForLatest } from "./latest.js";
import { predictionFormat } from "./numbers.js";
import { persist, showStatus } from "./persist.js";
import { ServiceError, needsKey, predictionPaths, request, urlOf } from "./service.js";

const SETTLED = 400; // milliseconds after the last change
const $ = (id) => document.getElementById(id);

/** Return the line that says why there is no prediction. */
function statusOf({ message, fields }, cards) {
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
    this.changed = askForLatest(() => this.ask());
    this.cards = new Map(
      this.features.map((feature) => [
        feature.name,
        new Card(feature, (...change) => this.change(...change)),
      ]),
    );
    $("cards").append(...[...this.cards.values()].map((card) => card.node));
    this.describe(openapi, model);
    this.listen();
    this.useRecord(readRecord(this.features));
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
    $("reset").addEventListener("click", () => this.useRecord({}));
    $("sort").addEventListener("click", () => this.sort());
    $("copy").addEventListener("click", () => this.copy());
    addEventListener("hashchange", () => this.useRecord(readRecord(this.features)));
    let { innerWidth } = window;
    addEventListener("resize", () => {
      if (innerWidth !== window.innerWidth && this.answer) this.draw(this.answer);
      innerWidth = window.innerWidth;
    });
  }

  /** Show the example record with some other values. */
  useRecord(values) {
    this.record = Object.fromEntries(
      this.features.map((feature) => [feature.name, exampleOf(feature)]),
    );
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
    $("main").setAttribute("aria-busy", "true");
    this.changed();
    this.settleSoon();
  }

  /** After the last change: write the address, and tell those who hear the page. */
  settleSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      writeRecord(this.record);
      $("announcement").textContent = document.querySelector(".prediction").textContent;
    }, SETTLED);
  }

  async ask() {
    try {
      this.show(await persist(() => this.curves.predict({ ...this.record })));
    } catch (error) {
      if (!(error instanceof ServiceError)) throw error;
      await this.refuse(error);
    }
  }

  show(answer) {
    this.answer = answer;
    this.showPrediction(answer.prediction);
    this.showMessages({});
    $("cards").classList.remove("stale");
    this.draw(answer);
    if (this.toSort) this.sort();
    this.toSort = false;
    $("sort").hidden = this.isSorted();
    this.showBusy(answer.record);
  }

  /** Show that the page is busy if the record has changed since. */
  showBusy(record) {
    const isNewest = JSON.stringify(record) === JSON.stringify(this.record);
    $("main").setAttribute("aria-busy", String(!isNewest));
    this.settleSoon();
  }

  /** Show a prediction, or that there is none. */
  showPrediction(prediction) {
    $("prediction").textContent = prediction === null ? "–" : this.format(prediction);
    $("prediction").dataset.value = prediction ?? "";
  }

  draw({ record, prediction, curves }) {
    this.showOmitted(curves);
    const all = [prediction, ...[...curves.values()].flat().map((point) => point.prediction)];
    const scale = { prediction, domain: [Math.min(...all), Math.max(...all)], format: this.format };
    const width = $("cards").querySelector("svg")?.clientWidth; // of all pictures: measured once
    for (const [name, points] of curves) {
      this.cards.get(name).draw({ points, value: record[name], ...scale, width });
    }
  }

  /** Say how many features have no picture because an array of the service is too short. */
  showOmitted(curves) {
    const omitted = this.features.filter(({ name, kind }) => kind !== "text" && !curves.has(name));
    $("omitted").hidden = !omitted.length;
    $("omitted").textContent =
      `${omitted.length} features have no picture: an array may hold too few records.`;
  }

  /** Show why the curves could not be predicted, and the record alone if that can be. */
  async refuse(error) {
    const record = { ...this.record };
    try {
      const { prediction } = await request(this.paths.single, record);
      this.showPrediction(prediction);
      this.showMessages({});
      showStatus(error.message, true);
    } catch (reason) {
      if (!(reason instanceof ServiceError)) throw reason;
      this.showPrediction(null);
      this.showMessages(reason.fields);
      showStatus(statusOf(reason, this.cards), true);
    }
    $("cards").classList.add("stale");
    this.showBusy(record);
  }

  /** Show each message beside the field that it names. */
  showMessages(messages) {
    for (const [name, card] of this.cards) card.showError(messages[name]);
  }

  /** Return the names of the features, those first that move the prediction most. */
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
    const command = curlCommand(urlOf(this.paths.single), this.record, needsKey(this.openapi));
    try {
      await navigator.clipboard.writeText(command);
      showStatus("Copied");
    } catch {
      $("curl").value = command; // a page without TLS may not use the clipboard
      $("curl-dialog").showModal();
      $("curl").select();
    }
  }
}

try {
  const openapi = await persist(() => request("docs.json"));
  new Page(openapi, await persist(() => request("model")));
} catch (error) {
  showStatus(error.message, true);
  throw error;
}
