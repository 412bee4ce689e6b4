// Numbers as people read them.

const grouping = { useGrouping: "min2" }; // 1999, but 41,000
const whole = new Intl.NumberFormat("en", grouping);
const short = new Intl.NumberFormat("en", { ...grouping, maximumSignificantDigits: 4 });

/** Format a value of a feature for a label. */
export function formatValue(value) {
  if (value === null || value === undefined) return "missing";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return String(value);
  return (Number.isInteger(value) ? whole : short).format(value);
}

/** Return a function that formats predictions, to a thousandth of the spread of the target. */
export function predictionFormat(targetStd) {
  const digits = targetStd > 0 ? Math.floor(3 - Math.log10(targetStd)) : 2;
  const fixed = Math.min(Math.max(digits, 0), 12);
  const format = new Intl.NumberFormat("en", {
    minimumFractionDigits: fixed,
    maximumFractionDigits: fixed,
  });
  return (value) => format.format(value).replace(/^-/, "−");
}
