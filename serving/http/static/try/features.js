// What /docs.json and /model say of the features, as the form and the curves need it.

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
  const known = card.training_values?.[name];
  const shares = card.training_shares?.[name] ?? [];
  return {
    kind: "choice",
    values,
    isSwitch: schema.type === "boolean",
    isKnown: (value) => !known || known.includes(value),
    shareOf: (value) => shares[known?.indexOf(value)] ?? 0,
  };
}

function describeNumber(name, schema, card) {
  const [low, high] = card.training_range[name] ?? [schema.minimum ?? 0, schema.maximum ?? 1];
  const isInteger = schema.type === "integer";
  return {
    kind: "number",
    low,
    high,
    isInteger,
    deciles: card.training_deciles?.[name] ?? [],
    stops: sliderStops(low, high, isInteger),
    isKnown: (value) => low <= value && value <= high,
  };
}

/** Return the values that a slider stops at: both ends, and round numbers between them. */
function sliderStops(low, high, isInteger) {
  const step = Math.max(niceStep((high - low) / SLIDER_STEPS), isInteger ? 1 : 0);
  const stops = [low];
  for (let n = Math.floor(low / step) + 1; n * step < high; n++) {
    stops.push(Number((n * step).toPrecision(12)));
  }
  return high > low ? [...stops, high] : stops;
}

/** Return the next 1, 2 or 5 times a power of ten. */
function niceStep(least) {
  if (!(least > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(least));
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
  if (feature.kind === "number") return feature.deciles[5] ?? feature.low;
  return feature.kind === "choice" ? feature.values[0] : "";
}

/** Return the values along the curve of a feature: `count` of a number, all of a choice. */
export function curveValues(feature, count) {
  const values = feature.kind === "number" ? numbersAlong(feature, count) : feature.values;
  return feature.nullable && values.length ? [...values, null] : values;
}

// The numbers are evenly spaced; if there are many, some lie where the training data do instead.
function numbersAlong({ low, high, isInteger, deciles }, count) {
  const round = (value) => (isInteger ? Math.round(value) : Number(value.toPrecision(6)));
  const dense = count > 2 * deciles.length ? deciles.slice(1, -1) : [];
  const nEven = count - dense.length;
  const even = Array.from({ length: nEven }, (_, n) => low + ((high - low) * n) / (nEven - 1));
  const within = [...even, ...dense].map(round).filter((value) => low < value && value < high);
  return [...new Set([low, ...within, high])].sort((a, b) => a - b);
}
