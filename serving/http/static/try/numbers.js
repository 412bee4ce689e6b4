// Numbers as people read them.

/**
 * Return a function that formats the values of a feature. `span` is the length of the range of a
 * number: about a thousandth of it can be told apart. Without a span a number has all its digits.
 */
export function valueFormat(span) {
  const formatNumber = span === undefined ? String : numberFormat(span);
  return (value) => {
    if (value === null || value === undefined) return "missing";
    if (typeof value === "boolean") return value ? "yes" : "no";
    return typeof value === "number" ? formatNumber(value) : String(value);
  };
}

function numberFormat(span) {
  const { format } = new Intl.NumberFormat("en", {
    useGrouping: "min2", // 1999, but 41,000
    maximumFractionDigits: fractionDigits(span, 20),
    maximumSignificantDigits: 4,
    roundingPriority: "morePrecision",
  });
  return format;
}

/** Return a function that formats predictions, to a thousandth of the spread of the target. */
export function predictionFormat(targetStd) {
  const digits = targetStd > 0 ? fractionDigits(targetStd, 12) : 2;
  const { format } = new Intl.NumberFormat("en", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  });
  return (value) => format(value).replace(/^-/, "−");
}

/** Return how many digits after the point a thousandth of a span needs, at most `limit`. */
function fractionDigits(span, limit) {
  return Math.min(Math.max(Math.floor(3 - Math.log10(span)), 0), limit);
}
