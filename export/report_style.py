"""The stylesheet of the HTML report: light and dark by the reader's preference, from a phone to a desk.

Charts take their colours from the variables at the top.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #f7f5f2; --card: #ffffff; --ink: #20242a; --muted: #626a74; --line: #e2ded8;
  --teacher: #2c6fb7; --student: #b4531c; --fp32: #17857d; --baseline: #8a9099;
  --passed: #1b7a48; --caution: #8f6200; --failed: #b93128;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121418; --card: #1b1e24; --ink: #e9e6e1; --muted: #9ba3ae; --line: #31363f;
    --teacher: #72aef2; --student: #ee935a; --fp32: #4ec3b9; --baseline: #8c949f;
    --passed: #52c78c; --caution: #e2b23f; --failed: #f67b71;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere; }
main { max-width: 1152px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { margin: 0; font-size: 2rem; line-height: 1.2; letter-spacing: -.02em; }
h2 { margin: 48px 0 14px; font-size: 1.25rem; letter-spacing: -.01em; }
h3 { margin: 0 0 10px; font-size: 1rem; }
p, figure { margin: 0; }
.eyebrow { color: var(--student); font-size: .8rem; font-weight: 650; letter-spacing: .08em;
  text-transform: uppercase; }
.meta, .note, figcaption { color: var(--muted); font-size: .875rem; }
.note { margin-top: 12px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 18px; font-size: .9rem; }
a { color: var(--muted); text-decoration: none; }
a:hover { color: var(--ink); text-decoration: underline; text-underline-offset: 3px; }
.card, figure { padding: 18px 20px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; min-width: 0; }
.verdict { --mark: var(--passed); margin-top: 20px; padding: 22px 24px; border-left: 5px solid var(--mark); }
.verdict.caution { --mark: var(--caution); }
.verdict.failed { --mark: var(--failed); }
.verdict .status { color: var(--mark); font-weight: 700; font-size: .85rem; letter-spacing: .06em;
  text-transform: uppercase; }
.verdict .sentence { margin-top: 4px; max-width: 62ch; font-size: 1.3rem; line-height: 1.4;
  text-wrap: pretty; }
.verdict ul { margin: 12px 0 0; padding-left: 20px; }
.cards { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 14px; margin: 14px 0 0; }
.cards .card { padding: 14px 16px; }
.cards dt { color: var(--muted); font-size: .85rem; }
.cards dd { margin: 0; }
.cards .value { font-size: 1.65rem; font-weight: 650; letter-spacing: -.02em; line-height: 1.3;
  white-space: nowrap; }
.grid { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
section > * + * { margin-top: 14px; }
figure h3 { margin-bottom: 4px; }
figure svg { display: block; width: 100%; height: auto; margin-top: 8px; }
.scroll { overflow-x: auto; overflow-wrap: normal; background:
  linear-gradient(90deg, var(--card) 60%, transparent) left / 32px 100% no-repeat local,
  linear-gradient(-90deg, var(--card) 60%, transparent) right / 32px 100% no-repeat local,
  linear-gradient(90deg, var(--line), transparent) left / 14px 100% no-repeat scroll,
  linear-gradient(-90deg, var(--line), transparent) right / 14px 100% no-repeat scroll; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
td:last-child { overflow-wrap: anywhere; }
th, td { padding: 7px 16px 7px 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
tbody th { color: var(--ink); font-weight: inherit; white-space: normal; min-width: 8em; }
th:last-child, td:last-child { padding-right: 0; }
.figure { text-align: right; white-space: nowrap; }
.detail { min-width: 15em; }
.result-passed { color: var(--passed); }
.result-failed { color: var(--failed); font-weight: 700; }
.quotes { margin: 0; padding: 0; list-style: none; columns: 2; column-gap: 32px; }
.quotes li { break-inside: avoid; padding: 0 0 18px; }
.quotes q { display: block; quotes: "“" "”"; }
.quotes dl { display: grid; grid-template-columns: 4.4em minmax(0, 1fr); margin: 3px 0 0;
  font-size: .875rem; }
.quotes dt { color: var(--muted); }
.quotes dd { margin: 0; }
.right { color: var(--passed); }
.right::after { content: " ✓"; }
details > summary { cursor: pointer; font-weight: 600; }
details[open] > summary { margin-bottom: 10px; }
footer { margin-top: 48px; color: var(--muted); font-size: .85rem; }
@media (max-width: 760px) {
  main { padding: 24px 12px 40px; }
  h1 { font-size: 1.6rem; }
  h2 { margin-top: 36px; }
  .grid { grid-template-columns: minmax(0, 1fr); }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 10px; }
  .cards .value { font-size: 1.35rem; }
  .cards .card { padding: 10px 12px; }
  .card { padding: 14px; }
  figure { padding: 14px 8px 8px; }
  figure h3, figure figcaption { padding: 0 6px; }
  .verdict { padding: 16px; }
  .verdict .sentence { font-size: 1.12rem; }
  .quotes { columns: 1; }
  th, td { padding-right: 12px; }
  tbody th { min-width: 5.5em; }
}
@media print {
  :root { --paper: #fff; }
  nav { display: none; }
  .card, figure { break-inside: avoid; }
}
"""
