// The charts, in SVG: a curve for a number, bars for a choice, on the same scale of predictions.

const HEIGHT = 132;
const ROW = 26;
const PAD = { side: 10, top: 16, bottom: 16 }; // `side` is half of a slider's thumb
const LANE = 60; // at the right of a curve, for a missing value

/** Create an SVG element with attributes and, perhaps, a text. */
function svg(name, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function scale([from, to], [start, end]) {
  return (value) => start + ((value - from) / (to - from || 1)) * (end - start);
}

/**
 * Draw a curve or bars. `view` has the feature, its `points`, the `value` and `prediction` of the
 * record, the `domain` of all predictions, their `format`, and the `width` in pixels. Return a
 * function from a position in the chart to the point there.
 */
export function draw(root, view) {
  root.points = view.points; // for the tests
  return view.feature.kind === "number" ? drawCurve(root, view) : drawBars(root, view);
}

function drawCurve(root, { feature, points, value, prediction, domain, format, width }) {
  const right = width - PAD.side - (feature.nullable ? LANE : 0);
  const bottom = HEIGHT - PAD.bottom;
  const x = scale([feature.low, feature.high], [PAD.side, right]);
  const y = scale(domain, [bottom, PAD.top]);
  const numbers = points.filter((point) => point.value !== null);
  const gap = points.find((point) => point.value === null);
  const inside = value !== null && feature.wasInTraining(value);
  const path = inside
    ? [...numbers, { value, prediction }].sort((a, b) => a.value - b.value)
    : numbers;
  root.setAttribute("height", HEIGHT);
  root.replaceChildren(
    ...density(feature, x, bottom),
    svg("line", {
      class: "now",
      x1: PAD.side,
      x2: width - PAD.side,
      y1: y(prediction),
      y2: y(prediction),
    }),
    svg("path", {
      class: "curve",
      d: path
        .map(
          (point, n) =>
            `${n ? "L" : "M"}${x(point.value).toFixed(1)} ${y(point.prediction).toFixed(1)}`,
        )
        .join(""),
    }),
    svg("text", { class: "axis", x: PAD.side, y: 11 }, format(domain[1])),
    svg("text", { class: "axis", x: PAD.side, y: HEIGHT - 3 }, format(domain[0])),
  );
  const laneX = width - LANE / 2;
  if (gap) {
    root.append(
      svg("line", { class: "lane", x1: width - LANE, x2: width - LANE, y1: PAD.top, y2: bottom }),
      svg("circle", { class: "gap", cx: laneX, cy: y(gap.prediction), r: 4 }),
      svg("text", { class: "axis middle", x: laneX, y: HEIGHT - 3 }, "missing"),
    );
  }
  const markerX = value === null ? laneX : x(Math.min(Math.max(value, feature.low), feature.high));
  root.append(
    marker(
      markerX,
      y(prediction),
      bottom,
      value === null || inside ? 0 : Math.sign(value - feature.high),
    ),
  );
  return (atX) => {
    if (gap && (atX > width - LANE || !numbers.length)) return gap;
    const distance = (point) => Math.abs(x(point.value) - atX);
    return numbers.reduce((a, b) => (distance(b) < distance(a) ? b : a));
  };
}

/** Return the spread of the training data: each block holds a tenth of them. */
function density({ deciles }, x, bottom) {
  if (deciles.length < 2) return [];
  const even = (x(deciles.at(-1)) - x(deciles[0])) / (deciles.length - 1);
  return deciles.slice(1).map((to, n) => {
    const width = Math.max(x(to) - x(deciles[n]), 3);
    const height = 10 * Math.min(even / width, 5);
    const start = Math.min(x(deciles[n]), x(deciles.at(-1)) - width);
    return svg("rect", { class: "density", x: start, y: bottom - height, width, height });
  });
}

/** Return the mark of the record; `side` is -1 left of the range, 1 right of it, otherwise 0. */
function marker(x, y, bottom, side) {
  const group = svg("g", { class: side ? "marker outside" : "marker" });
  const tip = side * 7;
  group.append(
    svg("line", { x1: x, x2: x, y1: y, y2: bottom }),
    side
      ? svg("path", { d: `M${x + tip} ${y}L${x - tip} ${y - 7}V${y + 7}Z` })
      : svg("circle", { cx: x, cy: y, r: 5.5 }),
  );
  return group;
}

function drawBars(root, { feature, points, value, prediction, domain, format, width }) {
  const left = Math.round(width * 0.36);
  const right = width - PAD.side;
  const x = scale(domain, [left, right]);
  const now = x(prediction);
  const height = points.length * ROW;
  root.setAttribute("height", height + PAD.bottom);
  root.replaceChildren(svg("line", { class: "now", x1: now, x2: now, y1: 0, y2: height }));
  points.forEach((point, n) => {
    const y = n * ROW;
    const chosen = point.value === value;
    const end = x(point.prediction);
    const share = point.value === null ? 0 : feature.shareOf(point.value) * (right - left);
    const row = svg("g", { class: chosen ? "row chosen" : "row" });
    row.append(
      svg("rect", { class: "hit", x: 0, y, width, height: ROW }),
      svg("rect", { class: "density", x: left, y: y + 4, width: share, height: ROW - 8 }),
      svg("rect", {
        class: "bar",
        x: Math.min(now, end),
        y: y + 10,
        width: Math.abs(end - now),
        height: ROW - 20,
      }),
      svg("text", { x: 0, y: y + 17 }, shorten(feature.format(point.value), left)),
      svg("circle", { cx: chosen ? now : end, cy: y + ROW / 2, r: chosen ? 5.5 : 4 }),
    );
    root.append(row);
  });
  root.append(
    svg("text", { class: "axis", x: left, y: height + 12 }, format(domain[0])),
    svg("text", { class: "axis end", x: right, y: height + 12 }, format(domain[1])),
  );
  return (atX, atY) => points[Math.min(Math.max(Math.floor(atY / ROW), 0), points.length - 1)];
}

function shorten(text, width) {
  const maxCharacters = Math.floor(width / 7);
  return text.length > maxCharacters ? `${text.slice(0, maxCharacters - 1)}…` : text;
}
