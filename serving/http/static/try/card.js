// The card of a feature: its description, its controls, its picture and its messages.

import { draw } from "./chart.js";
import { effectOf } from "./curves.js";
import { exampleOf, nearestStop } from "./features.js";
import { formatValue } from "./numbers.js";

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

export class Card {
  /** `onChange` is called with the name of the feature and its value, or undefined. */
  constructor(feature, onChange) {
    this.feature = feature;
    this.onChange = onChange;
    this.id = `feature-${count++}`;
    this.build();
  }

  build() {
    const { feature, id } = this;
    this.control = this.buildControl();
    this.picture = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    this.picture.setAttribute("role", "img");
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
    if (feature.kind !== "text") this.node.append(this.picture);
    if (feature.kind === "number") this.node.append(this.buildSlider());
    this.effect = element(
      "span",
      { className: "effect" },
      feature.kind === "text" ? "no picture of a text" : "",
    );
    const messages = element("div", { className: "messages" }, this.note, this.error);
    this.node.append(this.buildEnds(), messages);
    this.listenToPicture();
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
      const options = feature.values.map((value, n) => new Option(formatValue(value), n));
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
    input.addEventListener("input", () => this.change(read()));
    return input;
  }

  buildMissing() {
    this.missing = element("input", { type: "checkbox" });
    this.missing.addEventListener("change", () =>
      this.change(this.missing.checked ? null : this.usual()),
    );
    return element("label", { className: "missing" }, this.missing, "missing");
  }

  /** Return the last value that was no gap. */
  usual() {
    if (this.present !== undefined) return this.present;
    const { nullable, ...feature } = this.feature;
    return exampleOf({ ...feature, example: feature.example ?? undefined });
  }

  buildSlider() {
    const { name, low, high, stops, isInteger } = this.feature;
    const step = isInteger ? 1 : "any"; // other steps would not reach both ends of the range
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
      if (!move) return;
      event.preventDefault();
      stopAt(nearestStop(stops, this.present ?? low) + move);
    });
    this.slider = slider;
    return slider;
  }

  buildEnds() {
    const { kind, low, high } = this.feature;
    const ends = element("div", { className: "ends" }, this.effect);
    if (kind === "number") {
      ends.prepend(element("span", {}, formatValue(low)));
      ends.append(element("span", {}, formatValue(high)));
    }
    return ends;
  }

  /** Show the point under the pointer, and set its value on a click. */
  listenToPicture() {
    const pointAt = ({ offsetX, offsetY }) => this.pick?.(offsetX, offsetY);
    this.picture.addEventListener("pointermove", (event) => {
      const point = pointAt(event);
      if (point)
        this.effect.textContent = `${formatValue(point.value)}: ${this.format(point.prediction)}`;
    });
    this.picture.addEventListener("pointerleave", () => this.showEffect());
    this.picture.addEventListener("click", (event) => {
      const point = pointAt(event);
      if (point) this.change(point.value);
    });
  }

  change(value) {
    this.setValue(value, document.activeElement === this.control);
    this.onChange(this.feature.name, value);
  }

  /** Show a value; while somebody types it, the field stays as it is. */
  setValue(value, typing = false) {
    const { feature, control } = this;
    const isMissing = value === null;
    this.value = value;
    if (!isMissing && value !== undefined) this.present = value;
    if (this.missing) this.missing.checked = isMissing;
    control.disabled = isMissing;
    if (this.slider) this.slider.disabled = isMissing;
    if (!typing) this.fillControl(isMissing ? this.usual() : value);
    if (this.slider && Number.isFinite(this.present)) {
      this.slider.value = this.present;
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
    const isOutside =
      value !== null && value !== undefined && feature.kind !== "text" && !feature.isKnown(value);
    this.note.hidden = !isOutside;
    if (!isOutside) return;
    this.note.textContent =
      feature.kind === "number"
        ? `Outside the training range, ${formatValue(feature.low)} to ${formatValue(feature.high)}`
        : "Not in the training data";
  }

  /** Show what the service says of the value, or nothing. */
  showError(message) {
    this.error.hidden = !message;
    this.error.textContent = message ?? "";
    this.control.setAttribute("aria-invalid", Boolean(message));
  }

  /** Draw the picture of a redraw: `points`, `value`, `prediction`, `domain`, `format`, `width`. */
  draw(view) {
    this.format = view.format;
    this.range = effectOf(view.points);
    this.pick = draw(this.picture, { feature: this.feature, ...view });
    const ends = view.points.map(({ prediction }) => prediction);
    const span = `${view.format(Math.min(...ends))} to ${view.format(Math.max(...ends))}`;
    this.picture.setAttribute(
      "aria-label",
      `Prediction as ${this.feature.name} alone changes: ${span}`,
    );
    if (!this.picture.matches(":hover")) this.showEffect();
  }

  showEffect() {
    this.effect.textContent =
      this.range >= 0 ? `moves it by ${this.format(this.range)}` : "no picture";
  }
}
