// The record in the address of the page, after the #, which browsers do not send; and in a command.

/** Return the values of the address, of the features that exist, as an object. */
export function readRecord(features) {
  const parameters = new URLSearchParams(location.hash.slice(1));
  const values = [];
  for (const { name } of features) {
    if (!parameters.has(name)) continue;
    try {
      values.push([name, JSON.parse(parameters.get(name))]);
    } catch {
      // Somebody has edited the address: the value of the example stays.
    }
  }
  return Object.fromEntries(values);
}

/** Write a record into the address, without a new entry in the history. */
export function writeRecord(record) {
  const values = Object.entries(record).map(([name, value]) => [name, JSON.stringify(value)]);
  history.replaceState(null, "", `#${new URLSearchParams(values)}`);
}

/** Return the command that tries a record. A key stays in a variable, not in the clipboard. */
export function curlCommand(url, record, withKey) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const headers = ["X-What-If: true", "Content-Type: application/json"];
  if (withKey) headers.push("Authorization: Bearer $API_KEY");
  const options = headers.map((header) => ` -H "${header}"`).join("");
  return `curl${options} -d ${quote(JSON.stringify(record))} ${quote(url)}`;
}
