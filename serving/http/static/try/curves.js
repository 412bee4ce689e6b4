// The curves of a record: for each feature the predictions as that feature alone changes.

import { curveValues } from "./features.js";
import { request } from "./service.js";

const POINTS = 41; // of the curve of a number, if an array may have that many records
const FEWEST_POINTS = 5;
const TOO_LARGE = [408, 413, 504]; // the statuses after which the page sends fewer records

export class Curves {
  /** `path` predicts an array of up to `maxRecords` records. */
  constructor(features, path, maxRecords) {
    this.path = path;
    this.features = features;
    this.refused = new Set(); // points that the service refuses, whatever the other values
    this.plan(maxRecords);
  }

  /** Choose as many points as fit in an array; leave out the longest curves if even few do not. */
  plan(maxRecords) {
    for (let count = POINTS; count >= FEWEST_POINTS; count--) {
      this.axes = this.features
        .map((feature) => ({ feature, values: curveValues(feature, count) }))
        .filter(({ values }) => values.length);
      if (this.nRecords() <= maxRecords) return;
    }
    while (this.axes.length && this.nRecords() > maxRecords) {
      const lengths = this.axes.map(({ values }) => values.length);
      this.axes.splice(lengths.lastIndexOf(Math.max(...lengths)), 1);
    }
  }

  /** Return the number of records of a request: the record itself and those of all points. */
  nRecords() {
    return 1 + this.axes.reduce((sum, { values }) => sum + values.length, 0);
  }

  /** Return how many features have no curve because an array of the service has too few records. */
  nOmitted() {
    return this.features.filter(({ kind }) => kind !== "text").length - this.axes.length;
  }

  /**
   * Return the prediction of a record, and by feature the points `{ value, prediction }` of its
   * curve. A feature has no curve if it was left out, or if the service refuses all its points.
   */
  async predict(record) {
    const points = this.axes.flatMap(({ feature, values }) =>
      values.map((value) => ({ name: feature.name, value })),
    );
    const accepted = points.filter((point) => !this.refused.has(keyOf(point)));
    try {
      const [prediction, predicted] = await this.predictPoints(record, accepted);
      const curves = new Map(predicted.map(({ name }) => [name, []]));
      for (const { name, ...point } of predicted) curves.get(name).push(point);
      return { record, prediction, curves };
    } catch (error) {
      if (!TOO_LARGE.includes(error.status) || !this.axes.length) throw error;
      this.plan(Math.floor(this.nRecords() / 2));
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

  /** Return the points that an error names; none if it names the record itself, or no record. */
  failedPoints(points, { status, fields = {} }) {
    const failed = new Set();
    for (const field of Object.keys(fields)) {
      const number = parseInt(field); // 3 of "3.age", and of "3" if several features are at fault
      const point = points[number - 1];
      if (!point) return new Set();
      failed.add(point);
      if (status === 400 && field === `${number}.${point.name}`) this.refused.add(keyOf(point));
    }
    return failed;
  }
}

/** Return how much a curve changes the prediction. */
export function effectOf(points) {
  const predictions = points.map(({ prediction }) => prediction);
  return predictions.length ? Math.max(...predictions) - Math.min(...predictions) : -1;
}

function keyOf({ name, value }) {
  return JSON.stringify([name, value]);
}
