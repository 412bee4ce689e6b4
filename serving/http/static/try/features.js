// What /docs.json and /model say of the features, as the form and the curves need it.

import { valueFormat } from "./numbers.js";

const SLIDER_STEPS = 200;

/**
 * Return the features of the model card, in its order. `kind` is "number" (with a range),
 * "choice" (with values) or "text".
 */
export function describeFeatures(card) {
  return Object.entries(card.features).map(([name, schema]) => {
    const common = {
      name,
      description: schema.description ?? "",
      unit: schema.unit ?? "",
      nullable: Boolean(schema.nullable),
      example: schema.example,
    };
    if (schema.type === "string" && !schema.enum && !("const" in schema)) {
      return { ...common, kind: "text", maxLength: schema.maxLength, values: [] };
    }
    const values = declaredValues(schema);
    return {
      ...common,
      ...(values ? describeChoice(name, schema, values, card) : describeNumber(name, schema, card)),
    };
  });
}

function declaredValues(schema) {
  if (schema.type === "boolean") return [false, true];
  return schema.enum ?? ("const" in schema ? [schema.const] : null);
}

function describeChoice(name, schema, values, card) {
  const [low, high] = lookUp(card.training_range, name) ?? []; // of numbers
  const known = lookUp(card.training_values, name);
  const shares = lookUp(card.training_shares, name) ?? [];
  return {
    kind: "choice",
    values,
    low,
    high,
    isSwitch: schema.type === "boolean",
    format: valueFormat(),
    wasInTraining: (value) =>
      known ? known.includes(value) : low === undefined || (low <= value && value <= high),
    shareOf: (value) => shares[known?.indexOf(value)] ?? 0,
  };
}

function describeNumber(name, schema, card) {
  const [low, high] = card.training_range[name];
  const isInteger = schema.type === "integer";
  return {
    kind: "number",
    low,
    high,
    isInteger,
    deciles: lookUp(card.training_deciles, name) ?? [],
    stops: sliderStops(low, high, isInteger),
    format: valueFormat(high - low),
    wasInTraining: (value) => low <= value && value <= high,
  };
}

/** Return an object's own property; a feature may be named `constructor`, as each object's is. */
export function lookUp(object, name) {
  return object && Object.hasOwn(object, name) ? object[name] : undefined;
}

/** Return the values that a slider stops at: both ends, and round numbers between them. */
function sliderStops(low, high, isInteger) {
  // In a range that narrow, multiples of a step are hardly told apart by a float.
  const isConstant = high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high));
  if (isConstant) return high > low ? [low, high] : [low];
  const step = Math.max(niceStep((high - low) / SLIDER_STEPS), isInteger ? 1 : 0);
  const stops = [low];
  for (let n = Math.floor(low / step) + 1; n * step < high; n++) {
    stops.push(round(n * step, powerOf(step)));
  }
  return [...stops, high];
}

/** Return the power of ten of a positive number: 2 of 345. */
function powerOf(number) {
  return Math.floor(Math.log10(number));
}

/** Round a value to a multiple of a power of ten. */
function round(value, power) {
  if (power < 0) return Number(value.toFixed(Math.min(-power, 100)));
  return Math.round(value / 10 ** power) * 10 ** power;
}

/** Return the next 1, 2 or 5 times a power of ten. */
function niceStep(least) {
  const power = 10 ** powerOf(least);
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least * 0.999);
}

/** Return the position of the stop next to a value. */
export function nearestStop(stops, value) {
  let nearest = 0;
  stops.forEach((stop, n) => {
    if (Math.abs(stop - value) < Math.abs(stops[nearest] - value)) nearest = n;
  });
  return nearest;
}

/** Return the value of a feature in the example record; without an example, a usual one. */
export function exampleOf(feature) {
  if (feature.example !== undefined) return feature.example;
  if (feature.nullable) return null;
  if (feature.kind === "number") {
    const median = feature.deciles[5] ?? feature.low;
    return feature.isInteger ? Math.round(median) : median;
  }
  return feature.kind === "choice" ? feature.values[0] : "";
}

/** Return the values along the curve of a feature: `count` of a number, all of a choice. */
export function curveValues(feature, count) {
  const values = feature.kind === "number" ? numbersAlong(feature, count) : feature.values;
  return feature.nullable && values.length ? [...values, null] : values;
}

// The numbers are evenly spaced; if there are many, some lie where the training data do instead.
function numbersAlong({ low, high, isInteger, deciles }, count) {
  const power = Math.max(powerOf(high - low) - 4, isInteger ? 0 : -Infinity);
  const dense = count > 2 * deciles.length ? deciles.slice(1, -1) : [];
  const nEven = count - dense.length;
  const even = Array.from({ length: nEven }, (_, n) => low + ((high - low) * n) / (nEven - 1));
  const rounded = [...even, ...dense].map((value) => round(value, power));
  const within = rounded.filter((value) => low < value && value < high);
  return [...new Set([low, ...within, high])].sort((a, b) => a - b);
}
