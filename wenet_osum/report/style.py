"""The style sheet of the report's page and of its plots."""

# Colors in light and dark; --s0 to --s7 are those of the lines of plots.
PALETTE = """
:root { --paper:#fbfbf9; --card:#fff; --ink:#1c2330; --dim:#6a7383; --line:#e3e5e8; \
--cell:#eef0f2; --accent:#2563ab;
  --bad:#c2452d; --good:#2e7d4f; --on:#fff;
  --s0:#2563ab; --s1:#d97a1a; --s2:#2e8b57; --s3:#b8405e; --s4:#7a5bb5; --s5:#8a6d3b; \
--s6:#1a98a6; --s7:#6b7280 }
@media (prefers-color-scheme: dark) { :root { --paper:#14171c; --card:#1b1f26; --ink:#e4e7ec; \
--dim:#98a2b3; --line:#2d333d; --cell:#262c35;
  --accent:#6aa5e8; --bad:#ee8068; --good:#6cc491; --on:#10141a;
  --s0:#6aa5e8; --s1:#f0a556; --s2:#6cc491; --s3:#ef87a0; --s4:#b39ae6; --s5:#cbb27c; \
--s6:#5fc9d5; --s7:#a3abb8 } }
"""
# What the elements of plots look like.
DRAWING = """
svg text { fill:var(--ink); font-size:12px }
svg .dim { fill:var(--dim) }
svg .small { font-size:11px }
svg .strong, svg .onfill { font-weight:600 }
svg .onfill { fill:var(--on) }
svg .cell { fill:var(--cell) }
svg .grid { stroke:var(--line) }
svg .line { fill:none; stroke-width:1.8; stroke-linejoin:round }
svg .diagonal { stroke:var(--dim); stroke-dasharray:4 4 }
svg .dot { fill:var(--accent); fill-opacity:.75 }
svg .interval { fill:var(--ink); fill-opacity:.22 }
svg .needle { fill:var(--ink) }
svg .target { stroke:var(--good); stroke-width:2 }
"""
BODY = """* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); font-variant-numeric:tabular-nums; \
line-height:1.5; font-size:15px;
  font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","PingFang SC",
    "Microsoft YaHei","Noto Sans CJK SC","WenQuanYi Zen Hei",sans-serif }
main { max-width:1120px; margin:0 auto; padding:36px 24px 72px }
h1 { font-size:27px; line-height:1.25; margin:0 0 6px; letter-spacing:-.01em }
h2 { font-size:20px; margin:0 0 2px }
h3 { font-size:15px; margin:26px 0 6px; padding-top:14px; border-top:1px solid var(--line) }
h2 + h3 { border-top:0; padding-top:0; margin-top:10px }
a { color:var(--accent); text-decoration:none }
a:hover { text-decoration:underline }
section { background:var(--card); border:1px solid var(--line); border-radius:10px; \
padding:20px 22px; margin:20px 0; overflow:hidden }
.dim { color:var(--dim) }
.small { font-size:12.5px }
.caption { color:var(--dim); font-size:13px; margin:18px 0 2px }
nav { margin:16px 0 0; display:flex; flex-wrap:wrap; gap:6px }
nav a { border:1px solid var(--line); border-radius:999px; padding:2px 12px; \
background:var(--card) }
dl { display:grid; grid-template-columns:max-content 1fr; gap:2px 16px; margin:14px 0 0; \
font-size:13.5px }
dt { color:var(--dim) }
dd { margin:0; overflow-wrap:anywhere }
code { font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace }
.wide { overflow-x:auto; margin:0 -22px; padding:0 22px }
.side .wide { margin:0; padding:0 }
table { border-collapse:collapse; width:100%; font-size:14px }
th { text-align:left; font-weight:500; color:var(--dim); font-size:12.5px; padding:6px 10px; \
border-bottom:1px solid var(--line); white-space:nowrap }
td { padding:5px 10px; border-bottom:1px solid var(--line); vertical-align:top }
.scores td { border-bottom:0; padding:3px 10px }
.scores tr.first td { border-top:1px solid var(--line); padding-top:9px }
.scores tr.last td { padding-bottom:9px }
tr:last-child td { border-bottom:0 }
th:first-child, td:first-child { padding-left:0 }
th:last-child, td:last-child { padding-right:0 }
.n { text-align:right; white-space:nowrap }
td.task, .value { font-weight:600 }
td svg { display:block; margin-top:2px }
.ok { color:var(--good); font-weight:600 }
.no { color:var(--bad); font-weight:600 }
.side { display:flex; flex-wrap:wrap; gap:12px 40px; align-items:flex-start; margin-top:8px }
.side > div { min-width:0; overflow-x:auto }
.chips { display:flex; flex-wrap:wrap; gap:6px; margin:8px 0 0; align-items:center }
.chip { background:var(--cell); border-radius:6px; padding:1px 9px; font-size:12.5px }
.chip:first-child { background:none; padding-left:0; min-width:64px; color:var(--dim) }
.chip.warn { color:var(--bad) }
.worst th:first-child, .worst td.key { width:170px }
.worst th:last-child, .worst td:last-child { width:190px; overflow-wrap:anywhere; \
font-size:12.5px; color:var(--dim) }
.worst td.key { overflow-wrap:anywhere; font-size:12.5px; color:var(--dim) }
.worst { table-layout:fixed; min-width:620px }
.pair { display:grid; grid-template-columns:32px 1fr; gap:0 8px; font-size:13.5px }
.pair span { overflow-wrap:anywhere }
.pair > span:nth-child(odd) { color:var(--dim); font-size:12px; line-height:21px }
del, ins { text-decoration:none; border-radius:3px; padding:0 2px }
del { background:color-mix(in srgb,var(--bad) 20%,transparent) }
ins { background:color-mix(in srgb,var(--accent) 24%,transparent) }
audio { height:30px; width:230px; margin-top:4px; display:block }
details { margin-top:10px }
summary { cursor:pointer; color:var(--dim); font-size:13px }
.legend { display:flex; flex-wrap:wrap; gap:4px 14px; font-size:12.5px; margin:2px 0 10px }
.legend i { display:inline-block; width:14px; height:3px; vertical-align:middle; margin-right:5px }
svg { max-width:100%; height:auto }
"""
PRINT = """@media print { body { background:#fff } section { break-inside:avoid } }
"""
STYLE = PALETTE + BODY + DRAWING + PRINT
