"""How the report looks, in light and dark, on wide and narrow screens."""

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --edge: #e1e4e8; --ink: #1b1f24; --faint: #5b6573;
  --link: #1f4f8f; --note: #fff6dd; --good: #1a7f37; --bad: #b3261e;
  --s0: #2563c9; --s1: #d9660a; --s2: #0d8a6a; --s3: #b0399a; --s4: #8a6d00; --s5: #5b6573; }
@media (prefers-color-scheme: dark) { :root { --page: #101317; --card: #191d23; --edge: #2a3038; --ink: #e6e9ed;
  --faint: #97a1ae; --link: #9cc4f7; --note: #2b2614; --good: #5fd07f; --bad: #ff8a80;
  --s0: #6ea8ff; --s1: #ff9f4a; --s2: #4fd0a8; --s3: #e58ad3; --s4: #e0c04a; --s5: #97a1ae; } }
* { box-sizing: border-box; }
html { scroll-behavior: smooth; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 20px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 22px; margin: 0 0 14px; }
h3 { font-size: 17px; margin: 28px 0 4px; overflow-wrap: anywhere; } h4 { font-size: 15px; margin: 24px 0 10px; }
p { margin: 8px 0; overflow-wrap: anywhere; } a { color: var(--link); }
.faint { color: var(--faint); font-size: 14px; } .good { color: var(--good); } .bad, .fault { color: var(--bad); }
.note, .missing { background: var(--note); border-radius: 8px; padding: 8px 14px; font-size: 15px; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px; }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 14px; padding: 22px 24px;
  margin-top: 22px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 12px; margin-top: 22px; }
.tiles a { background: var(--card); border: 1px solid var(--edge); border-radius: 14px; padding: 14px 16px;
  color: var(--ink); text-decoration: none; }
.tiles b { display: block; font-size: 24px; line-height: 1.3; }
.tiles span { color: var(--faint); font-size: 13px; display: block; overflow-wrap: anywhere; line-height: 1.35; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 18px 28px; }
figure { margin: 0; min-width: 0; } .chart { max-width: 520px; }
.chart svg { display: block; width: 100%; height: auto; }
.chart figcaption { font-weight: 600; font-size: 15px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 2px 0 6px; font-size: 13px; color: var(--faint); }
.legend span::before { content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 5px;
  background: var(--c); margin-right: 6px; }
svg text { fill: var(--faint); font: 12.5px system-ui, sans-serif; } svg .strong { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--edge); } .curve { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; }
.range { fill: var(--c); opacity: 0.16; } circle { fill: var(--c); }
.interval { stroke: var(--c); stroke-width: 5; stroke-linecap: round; opacity: 0.45; }
.s0 { --c: var(--s0); } .s1 { --c: var(--s1); } .s2 { --c: var(--s2); } .s3 { --c: var(--s3); }
.s4 { --c: var(--s4); } .s5 { --c: var(--s5); }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 18px;
  margin: 14px 0; }
.films.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.films.small { grid-template-columns: repeat(auto-fill, minmax(min(45%, 220px), 1fr)); gap: 14px; }
.film video { display: block; width: 100%; height: auto; border-radius: 10px; background: var(--edge); }
.film figcaption { display: flex; flex-direction: column; font-size: 14px; margin-top: 6px; overflow-wrap: anywhere; }
.film .faint { font-size: 12px; }
.scroll { overflow-x: auto; border: 1px solid var(--edge); border-radius: 10px; margin: 10px 0; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { padding: 7px 12px; text-align: left; vertical-align: top; } th { color: var(--faint); font-weight: 600; }
tr + tr td { border-top: 1px solid var(--edge); } .number { text-align: right; font-variant-numeric: tabular-nums; }
details { border-top: 1px solid var(--edge); padding: 8px 0; } summary { cursor: pointer; overflow-wrap: anywhere; }
pre { overflow-x: auto; font-size: 12.5px; line-height: 1.45; margin: 8px 0; } code { overflow-wrap: anywhere; }
@media (max-width: 560px) { main { padding: 20px 12px 60px; } section { padding: 16px 14px; } }
"""
