// The batch tab: a csv file in, the same rows with answers out, in requests that the server takes.

import { askPatiently } from "./server.js";
import { readCsv, writeCsv } from "./table.js";

const PREVIEW = 5;
const MOST_TEXTS = 32; // a small request is answered soon, so that the progress moves and others get their turn
const get = (id) => document.getElementById(id);
let limits = () => ({});
let table = null, running = null, address = null;

export function startBatch(getLimits) {
  limits = getLimits;
}

function say(text, isWrong = false) {
  get("batch-status").textContent = text;
  get("batch-status").classList.toggle("wrong", isWrong);
}

async function choose() {
  const file = get("file").files[0];
  table = null;
  get("start").disabled = get("column").disabled = true;
  get("download").hidden = get("preview").hidden = get("progress").hidden = true;
  if (!file) return say("No file yet.");
  try {
    const [header, ...rows] = readCsv(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
    if (!header || !rows.length) throw new Error("the file has no rows under its header");
    table = { name: file.name.replace(/\.csv$/i, ""), header, rows };
  } catch (error) {
    return say(error instanceof TypeError ? "the file is not UTF-8; save it as UTF-8" : error.message, true);
  }
  get("column").replaceChildren(...table.header.map((name, index) => new Option(name || `column ${index + 1}`, index)));
  get("column").value = Math.max(0, table.header.findIndex((name) => /^(text|message|sentence)$/i.test(name)));
  get("start").disabled = get("column").disabled = false;
  say(`${table.rows.length} rows.`);
}

// Returns the indices of rows in pieces that one request can hold.
function* pieces(texts, { most, bytes }) {
  const encoder = new TextEncoder();
  let piece = [], size = 200;
  for (const [index, text] of texts.entries()) {
    const length = encoder.encode(JSON.stringify(text)).length + 1;
    if (piece.length && (piece.length >= Math.min(most, MOST_TEXTS) || size + length > bytes)) {
      yield piece;
      piece = []; size = 200;
    }
    piece.push(index);
    size += length;
  }
  if (piece.length) yield piece;
}

async function run() {
  const column = Number(get("column").value), { model, ...limit } = limits();
  const texts = table.rows.map((row) => row[column] ?? "");
  const answers = new Array(texts.length);
  running = new AbortController();
  get("start").disabled = true;
  get("stop").hidden = get("progress").hidden = false;
  get("download").hidden = true;
  const started = performance.now();
  let done = 0, refused = 0, isStopped = false;
  for (const piece of pieces(texts, limit)) {
    try {
      const inputs = piece.map((index) => texts[index]);
      const { content } = await askPatiently("predict", { inputs, details: true, model }, running.signal);
      piece.forEach((index, place) => { answers[index] = content[place]; });
    } catch (error) {
      if (error.name === "AbortError") { isStopped = true; break; }
      refused += piece.length;
      piece.forEach((index) => { answers[index] = { error: error.message }; });
    }
    done += piece.length;
    get("progress").value = done / texts.length;
    say(`${done} of ${texts.length} rows, ${Math.round((1000 * done) / (performance.now() - started))} a second`);
  }
  get("stop").hidden = true;
  get("start").disabled = false;
  const ending = `${refused ? `, ${refused} refused (see the column error)` : ""}${isStopped ? ", stopped" : ""}.`;
  say(`${done} of ${texts.length} rows in ${((performance.now() - started) / 1000).toFixed(1)} s${ending}`, refused > 0);
  offer(answers);
}

function offer(answers) {
  const added = ["label", "probability", "source", "truncated", "error"];
  const cells = (found) => found
    ? [found.labels?.join("|") ?? "", found.probability?.toFixed(6) ?? "", found.source ?? "", found.truncated ?? "", found.error ?? ""]
    : added.map(() => "");
  const taken = new Set(table.header);
  const names = added.map((name) => (taken.has(name) ? `student_${name}` : name));
  const rows = table.rows.map((row, index) => [...table.header.map((_, place) => row[place] ?? ""), ...cells(answers[index])]);
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(new Blob([writeCsv([[...table.header, ...names], ...rows])], { type: "text/csv" }));
  get("download").href = address;
  get("download").download = `${table.name}.answers.csv`;
  get("download").hidden = false;
  preview([...table.header, ...names], rows);
}

function preview(header, rows) {
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => Object.assign(document.createElement(tag), { textContent: cell })));
    return row;
  };
  get("preview-head").replaceChildren(line(header, "th"));
  get("preview-body").replaceChildren(...rows.slice(0, PREVIEW).map((row) => line(row, "td")));
  get("preview").hidden = false;
}

get("file").addEventListener("change", choose);
get("start").addEventListener("click", run);
get("stop").addEventListener("click", () => running?.abort());
