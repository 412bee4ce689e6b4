// The record in the address of the page, after the #, which browsers do not send; and as curl.

/** Return the values of the address, of the features that exist, as an object. */
export function readRecord(features) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const record = {};
  for (const { name } of features) {
    if (!parameters.has(name)) continue;
    try {
      record[name] = JSON.parse(parameters.get(name));
    } catch {
      // Somebody has edited the address: the value of the example stays.
    }
  }
  return record;
}

/** Write a record into the address, without a new entry in the history. */
export function writeRecord(record) {
  const values = Object.entries(record).map(([name, value]) => [name, JSON.stringify(value)]);
  history.replaceState(null, "", `#${new URLSearchParams(values)}`);
}

/** Return the command that sends a record. A key stays in a variable, not in the clipboard. */
export function curlCommand(url, record, withKey) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const key = withKey ? ` -H "Authorization: Bearer $API_KEY"` : "";
  const body = quote(JSON.stringify(record));
  return `curl -H "Content-Type: application/json"${key} -d ${body} ${quote(url)}`;
}
