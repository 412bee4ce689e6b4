// The curves of a record: for each feature the predictions as that feature alone changes.

import { curveValues } from "./features.js";
import { request } from "./service.js";

const POINTS = 41; // of the curve of a number, if an array may hold that many
const FEWEST_POINTS = 5;

export class Curves {
  /** `path` predicts an array of up to `maxRecords` records. */
  constructor(features, path, maxRecords) {
    this.path = path;
    this.features = features;
    this.refused = new Set(); // points that the service refuses, whatever the other values
    this.plan(maxRecords);
  }

  /** Choose as many points as fit in an array; leave out the last curves if even few do not. */
  plan(maxRecords) {
    this.maxRecords = maxRecords;
    for (let count = POINTS; count >= FEWEST_POINTS; count--) {
      this.axes = this.features.map((feature) => ({
        feature,
        values: curveValues(feature, count),
      }));
      if (this.nRecords() <= maxRecords) break;
    }
    while (this.nRecords() > maxRecords) this.axes.pop();
    this.axes = this.axes.filter(({ values }) => values.length);
  }

  /** Return the number of records of a request: the record itself and those of all points. */
  nRecords() {
    return 1 + this.axes.reduce((sum, { values }) => sum + values.length, 0);
  }

  /** Return the prediction of a record, and the points `{ value, prediction }` of each feature. */
  async predict(record) {
    const points = this.axes.flatMap(({ feature, values }) =>
      values.map((value) => ({ name: feature.name, value })),
    );
    const accepted = points.filter((point) => !this.refused.has(keyOf(point)));
    try {
      const [prediction, predicted] = await this.predictPoints(record, accepted);
      const curves = new Map(this.axes.map(({ feature }) => [feature.name, []]));
      for (const { name, ...point } of predicted) curves.get(name).push(point);
      return { record, prediction, curves };
    } catch (error) {
      if (error.status !== 413 || !this.axes.length) throw error;
      this.plan(Math.floor(this.nRecords() / 2)); // the records are too long for as many
      return this.predict(record);
    }
  }

  async predictPoints(record, points, retry = true) {
    const records = [record, ...points.map(({ name, value }) => ({ ...record, [name]: value }))];
    try {
      const [prediction, ...others] = (await request(this.path, records)).predictions;
      return [prediction, points.map((point, n) => ({ ...point, prediction: others[n] }))];
    } catch (error) {
      const failed = this.failedPoints(points, error);
      if (!retry || !failed.size) throw error;
      const others = points.filter((point) => !failed.has(point));
      return this.predictPoints(record, others, false);
    }
  }

  /** Return the points that an error names; none if the record itself is at fault. */
  failedPoints(points, error) {
    const numbers = Object.keys(error.fields ?? {}).map((field) => parseInt(field)); // 3 of "3.age"
    if (!numbers.length || numbers.includes(0)) return new Set();
    const failed = new Set(numbers.map((number) => points[number - 1]));
    if (error.status === 400) failed.forEach((point) => this.refused.add(keyOf(point)));
    return failed;
  }
}

/** Return how much a curve moves the prediction. */
export function effectOf(points) {
  const predictions = points.map(({ prediction }) => prediction);
  return predictions.length ? Math.max(...predictions) - Math.min(...predictions) : -1;
}

function keyOf({ name, value }) {
  return JSON.stringify([name, value]);
}
