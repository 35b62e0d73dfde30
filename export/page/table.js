// csv as RFC 4180 has it: quoted cells may hold commas, quotes and line ends. Knows nothing of the page.

export function readCsv(text) {
  const rows = [];
  let row = [], cell = "", quoted = false;
  const source = text.replace(/^\uFEFF/, "");
  const separator = guessSeparator(source);
  for (let at = 0; at < source.length; at++) {
    const character = source[at];
    if (quoted) {
      if (character !== '"') cell += character;
      else if (source[at + 1] === '"') { cell += '"'; at++; }
      else quoted = false;
    } else if (character === '"' && cell === "") quoted = true;
    else if (character === separator) { row.push(cell); cell = ""; }
    else if (character === "\n" || character === "\r") {
      if (character === "\r" && source[at + 1] === "\n") at++;
      row.push(cell);
      rows.push(row);
      row = []; cell = "";
    } else cell += character;
  }
  if (quoted) throw new Error("a quote is never closed; save the file as csv again");
  if (cell !== "" || row.length) { row.push(cell); rows.push(row); }
  return rows.filter((cells) => cells.length > 1 || cells[0] !== "");
}

export function writeCsv(rows) {
  return rows.map((row) => row.map(quote).join(",") + "\r\n").join("");
}

function quote(cell) {
  const text = String(cell ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function guessSeparator(text) {
  const first = text.slice(0, (text.search(/[\r\n]/) + 1 || text.length + 1) - 1).replace(/"[^"]*"/g, "");
  const counts = [",", ";", "\t"].map((one) => [first.split(one).length, one]);
  return counts.sort((one, other) => other[0] - one[0])[0][1];
}
