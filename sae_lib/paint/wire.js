// What both widgets share: messages that are answered, the alert, pictures made of bytes, cells of a grid.
// The kernel side is sae_lib/paint/widgets.py.

const GONE = "The kernel was restarted or is gone: run this cell again to go on. The pictures stay as they were.";
const SILENT = "The kernel is busy with another cell, or was restarted. If this stays, run this cell again.";

// What a picture shows before its first: one that got its alt text while off the screen would stay without a size.
const EMPTY = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw==";

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// `ask(kind, content)` sends a message and gives its number, null without a kernel; answers come to `on[answer's kind](content, buffers)`.
function connect(model, root, on) {
  const view = Math.random().toString(36).slice(2);
  const alert = root.querySelector("[role=alert]");
  let count = 0, timer = null, silent = false;

  const say = (text) => { alert.textContent = text; };
  const gone = () => root.closest(".jupyter-widgets-disconnected") !== null;
  const lost = () => { clearTimeout(timer); timer = null; say(GONE); on.lost?.(); };
  const wait = () => { timer ??= setTimeout(() => { silent = true; say(gone() ? GONE : SILENT); }, 4000); };
  const ask = (kind, content = {}) => {
    const number = `${view}-${++count}`;
    try {
      if (gone()) throw new Error(GONE);
      model.send({ kind, number, ...content });
      model.send({ kind: "ping", number: `${view}-ping` });
    } catch { // also while the kernel restarts
      lost();
      return null;
    }
    wait();
    return number;
  };
  const receive = (content, buffers) => {
    if (!content.number?.startsWith(view)) return; // another view of the same widget asked
    clearTimeout(timer);
    timer = null;
    if (silent) { silent = false; say(""); }
    on[content.kind]?.(content, (buffers ?? []).map(asBlob), buffers);
  };
  model.on("msg:custom", receive);
  model.on("comm_live_update", () => setTimeout(() => { if (gone()) lost(); }));
  root.addEventListener("keydown", (event) => event.stopPropagation()); // else the notebook takes letters as commands
  return { ask, say, close: () => { model.off("msg:custom", receive); clearTimeout(timer); } };
}

const asBlob = (buffer) => new Blob([buffer], { type: "image/png" });

// Shows a PNG in an <img>, once it is decoded.
async function show(image, blob) {
  const url = URL.createObjectURL(blob), before = image.src;
  image.src = url;
  await image.decode().catch(() => {});
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

// The cell of a grid under a pointer.
function cellAt(event, canvas, grid) {
  const box = canvas.getBoundingClientRect();
  const inside = (at, start, size) => Math.min(grid - 1, Math.max(0, Math.floor(((at - start) / size) * grid)));
  return [inside(event.clientY, box.top, box.height), inside(event.clientX, box.left, box.width)];
}

// The cell that an arrow key leads to, or null for another key.
function cellBeside(key, [row, column], grid) {
  const [down, right] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[key] ?? [];
  if (down === undefined) return null;
  return [Math.min(grid - 1, Math.max(0, row + down)), Math.min(grid - 1, Math.max(0, column + right))];
}

// The cell of another grid that lies nearest.
function moved(cell, from, to) {
  return cell.map((at) => Math.min(to - 1, Math.floor(((at + 0.5) * to) / from)));
}

// The outline of one cell, visible on any picture.
function outline(pen, [row, column], side) {
  for (const [color, width] of [["#000", 5], ["#fff", 2]]) {
    pen.strokeStyle = color;
    pen.lineWidth = width;
    pen.strokeRect(column * side + 3, row * side + 3, side - 6, side - 6);
  }
}

// How well a feature reads its value, and how often this value appears when it is painted; empty where nothing knows the truth.
const digits = (number) => number.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
const tried = (draws) => draws === null || Number.isNaN(draws) ? "not tried" : `draws ${digits(draws)}`;
const worth = ({ reads, draws }) => reads === null ? "" : `reads ${digits(reads)}, ${tried(draws)}`;

// A feature's line in a list: mark and number, meaning, worth; of one that is active also how much.
function describe(each, blocks) {
  const block = blocks.find(({ name }) => name === each.block);
  const active = each.strength === undefined ? [] : [`×${each.strength.toFixed(1)} in ${Math.round(100 * each.share)} %`];
  const numbers = [...active, worth(each)].filter(Boolean).join(", ");
  return [
    make("span", { class: "mark", style: `color: ${block.color}`, "aria-hidden": "true" }, block.mark),
    make("span", { class: "id" }, each.id),
    make("span", { class: "meaning" }, each.meaning),
    make("span", { class: "numbers" }, numbers),
  ];
}
