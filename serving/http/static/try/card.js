// The card of a feature: its description, its controls, its chart and its messages.

import { draw } from "./chart.js";
import { effectOf } from "./curves.js";
import { exampleOf, nearestStop } from "./features.js";

// How many stops of a slider a key moves on.
const KEYS = {
  ArrowLeft: -1,
  ArrowDown: -1,
  ArrowRight: 1,
  ArrowUp: 1,
  PageDown: -10,
  PageUp: 10,
  Home: -Infinity,
  End: Infinity,
};

let count = 0;

/** Create an element with properties, attributes (`aria-label` and the like) and children. */
function element(name, properties, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

/** Show a text, or hide the element if there is none; aria-describedby reads hidden texts, too. */
function showText(node, text) {
  node.textContent = text;
  node.hidden = !text;
}

export class Card {
  /** `onChange` is called with the name of the feature and its value, undefined if empty. */
  constructor(feature, onChange) {
    this.feature = feature;
    this.onChange = onChange;
    this.id = `feature-${count++}`;
    this.build();
  }

  build() {
    const { feature, id } = this;
    this.control = this.buildControl();
    this.chart = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.chart.setAttribute("role", "img");
    this.note = element("p", { id: `${id}-note`, className: "note", hidden: true });
    this.error = element("p", { id: `${id}-error`, className: "error", hidden: true });
    const name = element("label", { htmlFor: id }, feature.name);
    const about = element("p", { id: `${id}-about`, className: "about" }, feature.description);
    if (feature.unit) about.append(element("span", { className: "unit" }, ` ${feature.unit}`));
    this.node = element(
      "article",
      { className: "card" },
      element("h3", {}, name),
      this.control,
      about,
    );
    this.node.classList.toggle("nullable", feature.nullable);
    if (feature.nullable) this.node.append(this.buildMissing());
    if (feature.kind !== "text") this.node.append(this.chart);
    if (feature.kind === "number") this.node.append(this.buildSlider());
    this.effect = element("span", { className: "effect" });
    const messages = element("div", { className: "messages" }, this.note, this.error);
    this.node.append(this.buildEnds(), messages);
    this.listenToChart();
  }

  /** Return the control with the exact value: a number field, a choice, a switch or a text. */
  buildControl() {
    const { feature, id } = this;
    const common = {
      id,
      className: "control",
      "aria-describedby": `${id}-about ${id}-note ${id}-error`,
    };
    if (feature.kind === "choice" && !feature.isSwitch) {
      const options = feature.values.map((value, n) => new Option(feature.format(value), n));
      const select = element("select", common, ...options);
      select.addEventListener("change", () => this.change(feature.values[select.value]));
      return select;
    }
    if (feature.isSwitch) {
      const input = element("input", { ...common, type: "checkbox", role: "switch" });
      input.addEventListener("change", () => this.change(input.checked));
      return input;
    }
    const isNumber = feature.kind === "number";
    const special = isNumber
      ? { type: "number", step: "any", inputMode: "decimal" }
      : { type: "text" };
    const input = element("input", { ...common, ...special, autocomplete: "off" });
    if (feature.maxLength) input.maxLength = feature.maxLength;
    const read = () =>
      isNumber ? (input.value === "" ? undefined : input.valueAsNumber) : input.value;
    input.addEventListener("input", () => this.change(read(), true));
    return input;
  }

  buildMissing() {
    const label = `${this.feature.name} missing`;
    this.missing = element("input", { type: "checkbox", "aria-label": label });
    this.missing.addEventListener("change", () =>
      this.change(this.missing.checked ? null : this.usual()),
    );
    return element("label", { className: "missing" }, this.missing, "missing");
  }

  /** Return the last value that was not missing. */
  usual() {
    if (this.present !== undefined) return this.present;
    const { nullable, ...feature } = this.feature;
    return exampleOf({ ...feature, example: feature.example ?? undefined });
  }

  buildSlider() {
    const { name, low, high, stops, isInteger } = this.feature;
    // Assistive technology moves the slider by this step, or by a hundredth of the range: each has
    // to reach another stop. Steps other than 1 would not reach both ends of the range.
    const step = isInteger && stops.length > high - low ? 1 : "any";
    const slider = element("input", {
      type: "range",
      min: low,
      max: high,
      step,
      "aria-label": `${name}, slider`,
    });
    const stopAt = (n) => this.change(stops[Math.min(Math.max(n, 0), stops.length - 1)]);
    slider.addEventListener("input", () => stopAt(nearestStop(stops, slider.valueAsNumber)));
    slider.addEventListener("keydown", (event) => {
      const move = KEYS[event.key];
      if (!move || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      stopAt(nearestStop(stops, this.present ?? low) + move);
    });
    this.slider = slider;
    return slider;
  }

  buildEnds() {
    const { kind, low, high, format } = this.feature;
    const ends = element("div", { className: "ends" }, this.effect);
    if (kind === "number") {
      ends.prepend(element("span", {}, format(low)));
      ends.append(element("span", {}, format(high)));
    }
    return ends;
  }

  /** Show the point under the pointer, and set its value on a click. */
  listenToChart() {
    const pointAt = ({ offsetX, offsetY }) => this.pick?.(offsetX, offsetY);
    this.chart.addEventListener("pointermove", (event) => {
      const point = pointAt(event);
      if (!point) return;
      const value = this.feature.format(point.value);
      this.effect.textContent = `${value}: ${this.format(point.prediction)}`;
    });
    this.chart.addEventListener("pointerleave", () => this.showEffect());
    this.chart.addEventListener("click", (event) => {
      const point = pointAt(event);
      if (point) this.change(point.value);
    });
  }

  change(value, typing = false) {
    this.setValue(value, typing);
    this.onChange(this.feature.name, value);
  }

  /** Show a value; while somebody types it, the field stays as it is. */
  setValue(value, typing = false) {
    const { control, slider } = this;
    const isMissing = value === null && Boolean(this.missing);
    this.value = value;
    if (!isMissing && value !== undefined) this.present = value;
    if (this.missing) this.missing.checked = isMissing;
    control.disabled = isMissing;
    if (!typing) this.fillControl(isMissing ? this.usual() : value);
    if (slider) slider.disabled = isMissing;
    if (slider && Number.isFinite(this.present)) {
      slider.value = this.present;
      slider.setAttribute("aria-valuetext", this.feature.format(this.present));
    }
    this.showNote();
  }

  fillControl(value) {
    const { feature, control } = this;
    if (feature.isSwitch) control.checked = value;
    else if (feature.kind === "choice") control.value = feature.values.indexOf(value);
    else control.value = value ?? "";
  }

  /** Say so if the training had no such value. */
  showNote() {
    const { feature, value } = this;
    const { format, low, high } = feature;
    const isOutside =
      value !== null &&
      value !== undefined &&
      feature.kind !== "text" &&
      !feature.wasInTraining(value);
    const text =
      low === undefined
        ? "Not in the training data"
        : `Outside the training range, ${format(low)} to ${format(high)}`;
    showText(this.note, isOutside ? text : "");
  }

  /** Show what the service says of the value, or nothing. */
  showError(message) {
    showText(this.error, message ?? "");
    this.control.setAttribute("aria-invalid", Boolean(message));
  }

  /** Draw the chart: `view` has `points`, `value`, `prediction`, `domain`, `format` and `width`. */
  draw(view) {
    this.format = view.format;
    this.range = effectOf(view.points);
    this.pick = draw(this.chart, { feature: this.feature, ...view });
    const predictions = view.points.map(({ prediction }) => prediction);
    const least = view.format(Math.min(...predictions));
    const greatest = view.format(Math.max(...predictions));
    this.chart.setAttribute(
      "aria-label",
      `Prediction as ${this.feature.name} alone changes: ${least} to ${greatest}`,
    );
    if (!this.chart.matches(":hover")) this.showEffect();
  }

  /** Remove the chart: the feature has no curve. */
  clear() {
    this.chart.replaceChildren();
    this.range = this.pick = undefined;
    this.showEffect();
  }

  showEffect() {
    this.effect.textContent =
      this.range === undefined
        ? `no chart${this.feature.kind === "text" ? " for text" : ""}`
        : `changes the prediction by up to ${this.format(this.range)}`;
  }
}
