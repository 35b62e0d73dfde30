// The page: texts in, answers out, and why. Every word of a user or a server becomes text, never markup.

import { ask, Refused, useToken } from "./server.js";
import { startBatch } from "./batch.js";

const WAIT_MS = 120; // after the last key
const SHOWN = 8; // labels before "all labels"
const KEPT = 50; // latencies that the median is of
const SLIGHT = 0.05; // of the strongest word: less is not shown
const BADGES = { abstain: "abstains", teacher: "by the teacher", fallback: "teacher did not answer" };
const get = (id) => document.getElementById(id);
const state = { info: null, texts: [], answers: [], chosen: 0, explained: null, label: null, all: false, latencies: [], asked: null };

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;
const breakable = (name) => name.replaceAll("_", "_\u200b"); // long names wrap between their words
const model = () => get("model").value || undefined;
const said = (error) => (error instanceof Refused ? error.message : "the server cannot be reached");

async function start() {
  try {
    state.info = (await ask("info")).content;
  } catch (error) {
    get("token-field").hidden = error.status !== 401;
    get("about").textContent = said(error);
    if (error.status === 401) get("token").focus();
    return;
  }
  get("token-field").hidden = true;
  get("model").replaceChildren(...state.info.models.map((one) => new Option(one.name, one.name)));
  get("model-field").hidden = state.info.models.length < 2;
  describe();
  startBatch(() => ({ model: model(), most: state.info.max_client_batch_size, bytes: state.info.max_body_bytes }));
  get("text").focus();
}

function describe() {
  const found = state.info.models.find((one) => one.name === model()) ?? state.info.models[0];
  get("name").textContent = found.name;
  const kind = found.kind.replace("_", "-");
  get("about").textContent = `${kind} · ${found.labels.length} labels · ${found.precision} · version ${found.model.slice(0, 12)}`;
  document.title = `${found.name} · Potstill`;
}

let timer;
function typed() {
  clearTimeout(timer);
  timer = setTimeout(answer, WAIT_MS);
}

async function answer() {
  state.asked?.abort();
  state.asked = new AbortController();
  const most = state.info?.max_client_batch_size ?? 32;
  const lines = get("text").value.split("\n").map((line) => line.trim()).filter(Boolean);
  state.texts = lines.slice(0, most);
  if (!state.texts.length || !state.info) {
    get("answers").hidden = get("details").hidden = true;
    report("Nothing to answer yet.");
    return;
  }
  try {
    const { signal } = state.asked;
    const inputs = { inputs: state.texts, details: true, model: model() };
    const found = await ask("predict", inputs, signal);
    state.answers = found.content;
    state.chosen = Math.min(state.chosen, state.answers.length - 1);
    const left = lines.length - state.texts.length;
    report(`${state.texts.length} answered${left ? `, ${left} more than one request takes: use Batch` : ""}.`);
    time(found);
    show();
  } catch (error) {
    if (error.name !== "AbortError") report(said(error), true);
  }
}

function report(text, isWrong = false) {
  get("status").textContent = text;
  get("status").classList.toggle("wrong", isWrong);
}

function time({ milliseconds, headers }) {
  state.latencies.push(milliseconds / state.texts.length);
  state.latencies.splice(0, state.latencies.length - KEPT);
  const sorted = [...state.latencies].sort((one, other) => one - other);
  const run = Number(headers.get("x-run-ms")) / state.texts.length;
  const median = sorted[Math.floor(sorted.length / 2)];
  get("latency").textContent =
    `${(milliseconds / state.texts.length).toFixed(1)} ms a text here and back · ${run.toFixed(2)} ms in the model · median of ${sorted.length}: ${median.toFixed(1)} ms`;
}

function show() {
  const rows = state.answers.map((found, index) => {
    const row = make("li");
    row.id = `answer-${index}`;
    row.setAttribute("role", "option");
    const doubtful = found.source === "abstain" ? `${found.scores[0].label}?` : "no label";
    const line = make("span", "answer", breakable(found.labels.join(", ") || doubtful));
    if (found.source !== "student") line.append(make("span", "badge", BADGES[found.source] ?? found.source));
    if (found.truncated) line.append(make("span", "badge", "cut"));
    row.append(make("q", "", state.texts[index]), line, make("span", "probability", percent(found.probability)));
    row.addEventListener("click", () => choose(index));
    return row;
  });
  get("answers").replaceChildren(...rows);
  get("answers").hidden = rows.length < 2;
  get("details").hidden = false;
  choose(state.chosen);
}

function choose(index) {
  state.chosen = index;
  for (const [place, row] of [...get("answers").children].entries()) {
    row.setAttribute("aria-selected", String(place === index));
    if (place === index && !get("answers").hidden) row.scrollIntoView({ block: "nearest" });
  }
  get("answers").setAttribute("aria-activedescendant", `answer-${index}`);
  bars(null);
  explain(null);
}

function bars(explained) {
  const found = state.answers[state.chosen];
  const shown = state.all ? found.scores : found.scores.slice(0, SHOWN);
  const focused = document.activeElement?.dataset?.label;
  get("bars").replaceChildren(...shown.map(({ label, score }) => {
    const button = make("button", found.labels.includes(label) ? "decided" : "");
    button.dataset.label = label;
    button.setAttribute("aria-pressed", String(label === explained));
    const track = make("span", "track"), fill = make("span", "fill");
    fill.style.width = `${100 * score}%`;
    track.append(fill);
    button.append(make("span", "name", breakable(label)), make("span", "value", percent(score)), track);
    button.addEventListener("click", () => explain(label));
    const item = make("li");
    item.append(button);
    return item;
  }));
  get("more").hidden = found.scores.length <= SHOWN;
  get("more").textContent = state.all ? "fewer labels" : `all ${found.scores.length} labels`;
  if (focused) [...get("bars").querySelectorAll("button")].find((one) => one.dataset.label === focused)?.focus();
}

async function explain(label) {
  const text = state.texts[state.chosen];
  const ticket = (state.explained = {});
  try {
    const { content } = await ask("explain", { text, label, model: model() }, state.asked?.signal);
    if (state.explained !== ticket) return; // somebody chose another text meanwhile
    bars(content.label);
    words(content);
    alike(content.alike);
  } catch (error) {
    if (error.name !== "AbortError" && state.explained === ticket) get("words-note").textContent = said(error);
  }
}

function words({ label, log_odds, pieces, unread }) {
  const most = Math.max(...pieces.map((piece) => Math.abs(piece.contribution ?? 0)), 1e-9);
  state.label = label;
  get("explained").textContent = breakable(label);
  get("words").replaceChildren(...pieces.map(({ text, contribution }) => {
    if (contribution === null) return document.createTextNode(text);
    const side = contribution >= 0 ? "for" : "against";
    const word = make("span", `word ${Math.abs(contribution) > SLIGHT * most ? side : ""}`, text);
    word.style.setProperty("--weight", `${Math.round((70 * Math.abs(contribution)) / most)}%`);
    word.title = `${contribution >= 0 ? "+" : "−"}${Math.abs(contribution).toFixed(2)}`;
    return word;
  }), make("span", "unread", unread));
  const strongest = pieces.filter((piece) => piece.contribution !== null)
    .sort((one, other) => Math.abs(other.contribution) - Math.abs(one.contribution)).slice(0, 3)
    .map((piece) => `${piece.text} ${piece.contribution >= 0 ? "+" : "−"}${Math.abs(piece.contribution).toFixed(2)}`);
  const cut = unread ? " What is crossed out was not read." : "";
  get("words-note").textContent = `Log-odds of the label ${log_odds.toFixed(2)}; without a word it would be less by: ${strongest.join(", ")}.${cut}`;
}

function alike(found) {
  get("alike").replaceChildren(...(found ?? []).map(({ text, label, similarity }) => {
    const item = make("li", "", text);
    item.append(make("span", "meta", `${label} · ${percent(similarity)} alike`));
    return item;
  }));
  get("alike-note").textContent = found ? "" : "This bundle carries no training texts (export.examples).";
}

function tab(name) {
  for (const one of ["try", "batch"]) {
    get(`tab-${one}`).setAttribute("aria-selected", String(one === name));
    get(`tab-${one}`).tabIndex = one === name ? 0 : -1;
    get(one).hidden = one !== name;
  }
}

function key(event) {
  const inField = ["TEXTAREA", "INPUT", "SELECT"].includes(event.target.tagName);
  if (event.key === "/" && !inField) {
    event.preventDefault();
    tab("try");
    get("text").focus();
  } else if (event.key === "Escape" && event.target === get("text")) {
    (get("answers").hidden ? get("bars").querySelector("button") : get("answers"))?.focus();
  } else if (event.target.getAttribute("role") === "tab" && ["ArrowLeft", "ArrowRight"].includes(event.key)) {
    const other = event.target.id === "tab-try" ? "batch" : "try";
    tab(other);
    get(`tab-${other}`).focus();
  } else if (event.target === get("answers") && ["ArrowUp", "ArrowDown", "Home", "End"].includes(event.key)) {
    event.preventDefault();
    const last = state.answers.length - 1;
    const wanted = { ArrowUp: state.chosen - 1, ArrowDown: state.chosen + 1, Home: 0, End: last }[event.key];
    choose(Math.max(0, Math.min(last, wanted)));
  }
}

get("text").addEventListener("input", typed);
get("model").addEventListener("change", () => { describe(); answer(); });
get("more").addEventListener("click", () => { state.all = !state.all; bars(state.label); });
get("token-field").addEventListener("submit", (event) => { event.preventDefault(); useToken(get("token").value); start(); });
for (const one of ["try", "batch"]) get(`tab-${one}`).addEventListener("click", () => tab(one));
document.addEventListener("keydown", key);
start();
