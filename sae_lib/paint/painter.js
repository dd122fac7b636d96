// SAEPaint. An edit is `{prompt, seed, model, layers: [{feature, strength, mask, steps}]}`, as sae_lib.paint reads it.

const TEMPLATE = `
<button data-testid="back" hidden>Back to the card</button>
<div class="bar tries" role="group" aria-label="Try this" hidden><b>Try this</b></div>
<div class="desk">
<div class="bar prompts">
  <label class="grow">Prompt <input data-testid="prompt" type="text" spellcheck="false"></label>
  <label>Seed <input data-testid="seed" type="number" step="1"></label>
  <label>Model <select data-testid="model"></select></label>
</div>
<div class="pictures">
  <figure>
    <figcaption><b>Before</b> – paint here</figcaption>
    <div class="frame"><img src="${EMPTY}" data-testid="before" alt="The picture before the edit">
      <canvas data-testid="brush" class="brush" width="512" height="512" tabindex="0" role="application"
        aria-label="Brush. Arrow keys move, space paints, B brush, E eraser, U undo, R redo."></canvas></div>
  </figure>
  <figure><figcaption><b>After</b> <span data-testid="seen"></span></figcaption>
    <div class="frame"><img src="${EMPTY}" data-testid="after" alt="The picture after the edit"></div></figure>
  <div class="side">
    <figure class="minor"><figcaption><b>Difference</b> – dark: none</figcaption>
      <div class="frame"><img src="${EMPTY}" data-testid="difference" alt="Where the two pictures differ"></div></figure>
    <div data-testid="note" role="status" class="note"></div>
  </div>
</div>
<div class="finder">
  <div class="bar">
    <label class="grow">Feature <input data-testid="search" type="search" spellcheck="false"
      placeholder="a word (red, star, night), or a number (up.1.2/17)"></label>
    <label>Sort <select data-testid="sort"><option value="">best first</option><option value="reads">reads</option>
      <option value="draws">draws</option></select></label>
    <button data-testid="active">Active in this picture</button>
    <details data-testid="numbers" hidden><summary>What do the numbers mean?</summary><dl>
      <dt>reads</dt><dd>How well the feature's activity tells where in a picture its word is true. 1 is perfect, 0 is chance.</dd>
      <dt>draws</dt><dd>How much more often its word comes true when it is painted than when a random feature is. 1 is
        always, 0 is no more often.</dd>
      <dt>not tried</dt><dd>Nobody measured what it draws.</dd>
      <dt>no clear meaning</dt><dd>It reads no word much better than a random direction does. It may still draw something.</dd>
      <dt>×2.0 in 10 %</dt><dd>Of a feature that is active in this picture: twice its mean activity where it is strongest, in a
        tenth of the picture.</dd></dl></details>
  </div>
  <div data-testid="found" role="status" class="found"></div>
  <ul class="results" aria-label="Features found"></ul>
</div>
<div class="work">
  <div class="bar tools">
    <span class="group" role="group" aria-label="Tool">
      <button data-tool="brush" aria-pressed="true">Brush</button><button data-tool="eraser" aria-pressed="false">Eraser</button>
    </span>
    <label>Width <select data-testid="width"><option value="1">1 cell</option><option value="2">2 cells</option>
      <option value="3">3 cells</option></select></label>
    <button data-testid="everywhere">Everywhere</button><button data-testid="clear">Clear</button>
    <span class="group"><button data-testid="undo">Undo</button><button data-testid="redo">Redo</button>
      <button data-testid="reset">Reset</button></span>
    <span class="running"><span data-testid="status" role="status" data-revision="0">connecting to the kernel …</span>
      <progress data-testid="progress" max="1" value="0" aria-label="Denoising steps done"></progress>
      <button data-testid="cancel" disabled>Cancel</button></span>
  </div>
  <div data-testid="alert" role="alert" class="alert"></div>
  <div class="heading">Layers <small>features that are turned on; the brush paints the marked one</small></div>
  <ul class="layers" aria-label="Layers"></ul>
  <div class="bar">
    <label class="slider grow">Strength <input data-testid="strength" type="range" min="-40" max="40" step="1"></label>
    <label><input data-testid="strength-number" type="number" min="-40" max="40" step="1" aria-label="Strength as a number">
      <small>× the feature's mean activation</small></label>
    <span class="steps">On from step <input data-testid="steps-start" type="number" min="0" aria-label="First step">
      to <input data-testid="steps-end" type="number" min="0" aria-label="Last step"> <small></small></span>
    <button data-testid="save">Save picture</button> <button data-testid="copy-code">Copy code</button>
  </div>
</div>
</div>
<details><summary>This edit as code</summary><textarea data-testid="code" readonly rows="12" spellcheck="false"
  aria-label="Python code that draws the same picture"></textarea></details>`;

const copy = (edit) => structuredClone(edit);
const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

function render({ model, el }) {
  const root = make("section", { class: "sae-painter sae-widget", "aria-label": "SAEPaint", "data-lm-suppress-shortcuts": "true" });
  root.innerHTML = TEMPLATE;
  el.append(root);
  const at = (name) => root.querySelector(`[data-testid="${name}"]`);
  const canvas = at("brush"), pen = canvas.getContext("2d"), status = at("status");

  let models = [], blocks = [], meanings = {}, grids = {}; // grids: cells along each side, by block
  let edit = null, first = null, shown = null, past = [], future = [];
  let marked = 0; // the layer that is painted
  let tool = "brush", cursor = null, cursorSide = 8, stroke = null, drawing = null, strokeEnd = null, listed = null, found = null;
  let tries = [], frames = null, seen = "", noted = "", byHand = false; // the edits to try; the last pictures of a whole drawing, and what was said of them
  let activeIn = null; // the picture whose active features are listed

  const wire = connect(model, root, {
    welcome(message) {
      ({ models, blocks, grids, tries } = message);
      at("numbers").hidden = !message.known;
      edit = first = message.edit;
      at("model").replaceChildren(...models.map(({ name }) => make("option", { value: name }, name)));
      offer();
      draw(); // before the list, which takes longer
      look();
    },
    progress({ number, done, count }) {
      const reading = `reading ${count} pictures, once: ${done} done`;
      if (!edit) status.textContent = reading;
      else if (number === listed) at("found").textContent = reading;
      else if (number === drawing) {
        const steps = stepsOf(edit), pictures = count / steps, which = pictures > 1 ? `, picture ${Math.floor(done / steps) + 1} of ${pictures}` : "";
        status.textContent = `step ${(done % steps) + 1} of ${steps}${which}`;
      } else return; // of a drawing that was cancelled
      at("progress").value = done / count;
    },
    async picture(message, blobs) {
      if (message.number !== drawing) return;
      await display(blobs);
      if (message.number !== drawing) return;
      if (message.quick) { // the quick picture, until the one that was asked for is there
        at("seen").textContent = `– in ${inSteps(message.steps)}; ${stepsOf(edit)} are being drawn`;
        painted();
        return;
      }
      frames = blobs;
      seen = at("seen").textContent = `– in ${inSteps(message.steps)}`;
      edit = shown = message.edit;
      grids = message.grids;
      Object.assign(meanings, message.meanings);
      at("code").value = message.code;
      wire.say(message.notes.join(" "));
      noted = at("note").textContent = [at("note").textContent, message.effect].filter(Boolean).join(" ");
      idle();
      status.dataset.revision = Number(status.dataset.revision) + 1;
      if (activeIn !== null && activeIn !== unedited()) listActive();
      painted();
    },
    refused({ number, sentence }) {
      wire.say(sentence);
      if (!edit) status.textContent = "stopped";
      else if (number === drawing || drawing === null) back(false);
    },
    features(message) {
      if (message.number !== listed) return;
      found = message;
      Object.assign(meanings, message.meanings);
      list();
      update();
    },
    lost() {
      if (edit) back(false);
      status.textContent = "no kernel";
    },
  });

  // Drawing, and the history of edits.
  const stepsOf = ({ model }) => models.find(({ name }) => name === model).steps;
  const inSteps = (count) => (count === 1 ? "one step" : `${count} steps`);
  const display = (blobs) => Promise.all(["before", "after", "difference"].map((name, i) => show(at(name), blobs[i])));
  function painted() { // the time from the end of a stroke to the first picture of it
    if (strokeEnd === null) return;
    const since = strokeEnd;
    strokeEnd = null;
    requestAnimationFrame(() => { root.dataset.latencyMs = (performance.now() - since).toFixed(1); });
  }
  function offer() {
    const button = ({ words, count, worked, seeds, edit: offered }) => make("button", { "data-testid": "try",
      title: `Tested on ${seeds} pictures, from seeds that had no part in choosing this edit: it worked in ${worked}. Prompt: ${offered.prompt}`,
      onclick: () => { marked = 0; byHand = false; commit(copy(offered), null, true); } },
    words, " ", make("small", {}, make("span", {}, count), make("span", {}, "shown now")));
    root.querySelector(".tries").append(...tries.map(button));
    root.querySelector(".tries").hidden = !tries.length;
  }
  function draw(news = "") {
    drawing = wire.ask("draw", { edit });
    if (drawing === null) return;
    at("note").textContent = news;
    status.textContent = "drawing …";
    at("progress").value = 0;
    at("cancel").disabled = false;
    update();
  }
  function idle() {
    drawing = null;
    status.textContent = "ready";
    at("cancel").disabled = true;
    at("progress").value = 0;
    update();
  }
  // What a button changes of the picture before the edit: nobody typed it.
  function newsOf(from, to) {
    const changed = (name, words) => (to[name] === from[name] ? [] : [words]);
    const news = [...changed("prompt", `“${to.prompt}”`), ...changed("seed", `seed ${to.seed}`), ...changed("model", to.model)];
    return news.length ? `New picture: ${news.join("; ")}.` : "";
  }
  function commit(next, since = null, byButton = false) {
    if (!edit || same(next, edit)) return update();
    const news = byButton ? newsOf(edit, next) : "";
    past.push(edit);
    future = [];
    edit = next;
    strokeEnd = since;
    draw(news);
  }
  function step(from, to) {
    if (!from.length) return;
    const next = from.pop(), news = newsOf(edit, next);
    to.push(edit);
    edit = next;
    draw(news);
  }
  // After a cancelled or refused drawing: to the edit that is on the screen, so that controls and pictures agree.
  function back(redoable) {
    while (shown && past.length && !same(edit, shown)) {
      if (redoable) future.push(edit);
      edit = past.pop();
    }
    edit = shown ?? edit;
    strokeEnd = null;
    if (frames) display(frames); // in place of a quick picture of what was given up
    at("seen").textContent = seen;
    at("note").textContent = noted;
    idle();
  }
  const undo = () => step(past, future), redo = () => step(future, past);
  const change = (fields) => commit({ ...copy(edit), ...fields });
  function changeLayer(fields, since) {
    const next = copy(edit);
    Object.assign(next.layers[marked], fields);
    commit(next, since);
  }

  // The brush.
  // A layer has its block's grid; while a feature of another block is fetched, still that of its mask, which the kernel brings over.
  const sideOf = (layer) => layer?.mask?.length ?? grids[layer?.feature.split("/")[0]] ?? 8;
  const side = () => stroke?.mask.length ?? sideOf(edit?.layers[marked]);
  const filled = (value, side) => Array.from({ length: side }, () => Array(side).fill(value));
  function dab(mask, [row, column]) {
    const width = Number(at("width").value), value = tool === "brush" ? 1 : 0, lead = Math.floor((width - 1) / 2);
    for (let y = row - lead; y < row - lead + width; y++)
      for (let x = column - lead; x < column - lead + width; x++)
        if (mask[y]?.[x] !== undefined) mask[y][x] = value;
  }
  const start = () => copy(edit.layers[marked].mask ?? filled(tool === "brush" ? 0 : 1, side()));
  canvas.addEventListener("pointerdown", (event) => {
    if (!edit?.layers[marked] || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    stroke = { mask: start(), last: cellAt(event, canvas, side()), pointer: event.pointerId };
    dab(stroke.mask, stroke.last);
    paint();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    const [row, column] = cellAt(event, canvas, side()), [fromRow, fromColumn] = stroke.last;
    const cells = Math.max(Math.abs(row - fromRow), Math.abs(column - fromColumn));
    for (let i = 1; i <= cells; i++) // cells that a fast stroke jumps over
      dab(stroke.mask, [fromRow + Math.round(((row - fromRow) * i) / cells), fromColumn + Math.round(((column - fromColumn) * i) / cells)]);
    stroke.last = [row, column];
    paint();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (stroke?.pointer !== event.pointerId) return;
    const { mask } = stroke;
    stroke = null;
    changeLayer({ mask }, performance.now());
  });
  canvas.addEventListener("pointercancel", () => { stroke = null; paint(); });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) { cursor ??= [0, 0]; paint(); } });
  canvas.addEventListener("blur", () => { cursor = null; paint(); });
  canvas.addEventListener("keydown", (event) => {
    if (!edit || event.ctrlKey || event.metaKey) return;
    const next = cellBeside(event.key, cursor ?? [0, 0], side()), key = event.key.toLowerCase();
    if (next) cursor = next;
    else if ((key === " " || key === "enter") && edit.layers[marked]) {
      const mask = start();
      dab(mask, cursor ?? [0, 0]);
      changeLayer({ mask }, performance.now());
    } else if (key === "b" || key === "e") choose(key === "b" ? "brush" : "eraser");
    else if (key === "u") undo();
    else if (key === "r") redo();
    else return;
    event.preventDefault();
    paint();
  });
  function paint() {
    pen.clearRect(0, 0, canvas.width, canvas.height);
    edit?.layers.forEach((layer, i) => {
      const cells = i === marked ? side() : sideOf(layer), size = canvas.width / cells;
      const mask = i === marked && stroke ? stroke.mask : layer.mask ?? filled(1, cells);
      const { color } = blocks.find(({ name }) => layer.feature.startsWith(`${name}/`)) ?? { color: "#888" };
      for (let y = 0; y < cells; y++)
        for (let x = 0; x < cells; x++) if (mask[y]?.[x]) {
          pen.globalAlpha = (i === marked ? 0.25 : 0.12) * mask[y][x]; // the picture below stays to be seen
          pen.fillStyle = color;
          pen.fillRect(x * size, y * size, size, size);
          pen.globalAlpha = i === marked ? 1 : 0.5;
          edges(mask, y, x, size);
        }
    });
    pen.globalAlpha = 1;
    if (cursor) outline(pen, cursor, canvas.width / side());
  }
  function edges(mask, y, x, side) { // the mask's border, white on black
    const open = [[-1, 0, x, y, x + 1, y], [1, 0, x, y + 1, x + 1, y + 1], [0, -1, x, y, x, y + 1], [0, 1, x + 1, y, x + 1, y + 1]];
    for (const [down, right, ...ends] of open) {
      if (mask[y + down]?.[x + right]) continue;
      for (const [color, width] of [["#000", 6], ["#fff", 3]]) {
        pen.strokeStyle = color;
        pen.lineWidth = width;
        pen.beginPath();
        pen.moveTo(ends[0] * side, ends[1] * side);
        pen.lineTo(ends[2] * side, ends[3] * side);
        pen.stroke();
      }
    }
  }
  function choose(name) {
    tool = name;
    for (const button of root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
  }

  // Features found, and layers.
  const unedited = () => JSON.stringify([edit.prompt, edit.seed, edit.model]);
  function listActive() {
    activeIn = unedited();
    at("search").value = "";
    ask("active", { edit });
  }
  function ask(kind, content) { // an answer to an earlier question is not shown any more
    listed = wire.ask(kind, content);
    if (listed !== null) at("found").textContent = kind === "active" ? "reading the picture …" : "searching …";
  }
  const look = () => ask("search", { text: at("search").value });
  function list() {
    const by = at("sort").value, { unlearnt } = found;
    const sorted = (features) => by ? [...features].sort((a, b) => (b[by] ?? -2) - (a[by] ?? -2)) : features;
    const line = (each) => make("li", {},
      make("button", { "data-testid": "result", "data-feature": each.id, class: "line", title: "Paint with this feature",
        onclick: () => use(each, false) }, ...describe(each, blocks)),
      make("button", { class: "small", "aria-label": `Add ${each.id} as another layer`, title: "Add as another layer",
        onclick: () => use(each, true) }, "+"));
    const results = root.querySelector(".results"), lines = sorted(found.found).map(line), weak = sorted(found.weak).map(line);
    if (!lines.length) lines.push(make("li", { class: "none" }, weak.length ? "no feature means this" : "nothing found"));
    if (weak.length) lines.push(make("li", {}, make("details", { "data-testid": "weak" }, make("summary", {}, `${weak.length} weak hits: they read the word weakly, or are active in pictures that fit it`), make("ul", {}, ...weak))));
    results.replaceChildren(...lines);
    results.scrollTop = 0; // of the list before
    at("found").textContent = unlearnt.length ? `the pocket model never learnt: ${unlearnt.join(", ")}` : "";
  }
  const strengthOf = (block) => found?.strengths[block] ?? 10; // what its features are turned on with at first
  function use(each, asAnother) {
    if (!edit) return;
    meanings[each.id] = each.meaning;
    const next = copy(edit);
    if (asAnother || !next.layers.length) {
      next.layers.push({ feature: each.id, strength: strengthOf(each.block), mask: filled(0, grids[each.block]), steps: null });
      marked = next.layers.length - 1;
    } else {
      const layer = next.layers[marked];
      if (!byHand) layer.strength = strengthOf(each.block);
      layer.feature = each.id;
    }
    commit(next);
  }
  function layerLine(layer, i) {
    const block = layer.feature.split("/")[0];
    const cells = sideOf(layer);
    const where = layer.mask ? `${layer.mask.flat().filter(Boolean).length} cells of ${cells} × ${cells}` : "everywhere";
    const parts = describe({ id: layer.feature, block, meaning: meanings[layer.feature] ?? "", reads: null }, blocks);
    parts[3].textContent = `×${layer.strength}, ${where}`;
    return make("li", { "data-testid": "layer", "data-feature": layer.feature },
      make("button", { class: "line", "aria-pressed": String(i === marked), onclick: () => { marked = i; update(); } }, ...parts),
      make("button", { class: "small", "aria-label": `Remove ${layer.feature}`, title: "Remove this layer", onclick: () => {
        const next = copy(edit);
        next.layers.splice(i, 1);
        commit(next);
      } }, "×"));
  }

  // All controls from the state.
  function update() {
    if (!edit) return;
    const layers = root.querySelector(".layers"), buttons = () => [...layers.querySelectorAll("button")];
    const focused = root.getRootNode().activeElement, held = buttons().indexOf(focused);
    marked = Math.max(0, Math.min(marked, edit.layers.length - 1));
    if (cursor) cursor = moved(cursor, cursorSide, side());
    cursorSide = side();
    const layer = edit.layers[marked], steps = stepsOf(edit);
    at("prompt").value = edit.prompt;
    at("seed").value = edit.seed;
    at("model").value = edit.model;
    layers.replaceChildren(...edit.layers.map(layerLine));
    if (!edit.layers.length) layers.append(make("li", { class: "none" }, "none: choose a feature from the list"));
    for (const name of ["strength", "strength-number", "steps-start", "steps-end", "everywhere", "clear"]) at(name).disabled = !layer;
    at("strength").value = layer?.strength ?? 10;
    label();
    at("steps-start").value = layer?.steps?.[0] ?? 0;
    at("steps-end").value = (layer?.steps?.[1] ?? steps) - 1;
    for (const name of ["steps-start", "steps-end"]) at(name).max = steps - 1;
    root.querySelector(".steps small").textContent = `(0, the noisiest, to ${steps - 1})`;
    root.querySelector(".steps").hidden = steps === 1;
    root.querySelectorAll(".tries button").forEach((button, i) => button.setAttribute("aria-pressed", same(edit, tries[i].edit)));
    at("reset").disabled = same(edit, first);
    at("undo").disabled = !past.length;
    at("redo").disabled = !future.length;
    at("save").disabled = at("copy-code").disabled = !frames;
    if (held >= 0) (buttons()[held] ?? buttons().at(-1) ?? canvas).focus();
    else if (focused?.disabled && root.contains(focused)) canvas.focus({ preventScroll: true }); // the notebook would hear the keys
    paint();
  }
  const label = () => { at("strength-number").value = at("strength").value; };

  at("prompt").addEventListener("change", () => change({ prompt: at("prompt").value }));
  at("seed").addEventListener("change", () => change({ seed: Math.trunc(Number(at("seed").value)) || 0 }));
  at("model").addEventListener("change", () => {
    const next = { ...copy(edit), model: at("model").value }, steps = stepsOf(next);
    for (const layer of next.layers) if (layer.steps?.[1] > steps) layer.steps = null;
    commit(next);
  });
  at("strength").addEventListener("input", () => { byHand = true; label(); });
  at("strength").addEventListener("change", () => changeLayer({ strength: Number(at("strength").value) }));
  at("strength-number").addEventListener("change", () => {
    byHand = true;
    at("strength").value = at("strength-number").value || 0; // which keeps it within the slider's ends
    changeLayer({ strength: Number(at("strength").value) });
  });
  for (const name of ["steps-start", "steps-end"]) at(name).addEventListener("change", () => {
    const { steps } = models.find(({ name: each }) => each === edit.model);
    const whole = (each) => Math.min(steps - 1, Math.max(0, Math.trunc(Number(at(each).value)) || 0));
    let [from, to] = [whole("steps-start"), whole("steps-end")];
    if (from > to) [from, to] = name === "steps-start" ? [from, from] : [to, to];
    changeLayer({ steps: from === 0 && to === steps - 1 ? null : [from, to + 1] });
  });
  for (const button of root.querySelectorAll("[data-tool]")) button.addEventListener("click", () => choose(button.dataset.tool));
  at("everywhere").addEventListener("click", () => changeLayer({ mask: null }));
  at("clear").addEventListener("click", () => changeLayer({ mask: filled(0, side()) }));
  at("undo").addEventListener("click", undo);
  at("redo").addEventListener("click", redo);
  at("reset").addEventListener("click", () => edit && commit(copy(first), null, true));
  at("cancel").addEventListener("click", () => {
    if (drawing === null) return;
    wire.ask("cancel", { of: "draw" });
    back(true);
    wire.say("Cancelled: this is the last picture that was drawn. Redo draws the other after all.");
  });
  at("save").addEventListener("click", () => {
    const link = make("a", { href: URL.createObjectURL(frames[1]), download: `saepaint-seed-${edit.seed}.png` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  at("copy-code").addEventListener("click", async () => {
    const text = at("code").value, button = at("copy-code");
    try { await navigator.clipboard.writeText(text); } catch { // no permission, or a page without https
      root.querySelector("details").open = true;
      at("code").select();
      document.execCommand("copy");
    }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy code"; }, 1500);
  });
  let typing = null;
  at("search").addEventListener("input", () => {
    clearTimeout(typing);
    activeIn = null;
    listed = null; // what was asked before is not waited for
    typing = setTimeout(look, 150);
  });
  at("active").addEventListener("click", () => { clearTimeout(typing); if (edit) listActive(); });
  at("sort").addEventListener("change", () => { if (found) list(); });
  root.addEventListener("keydown", (event) => {
    const writing = event.target.matches("textarea, input[type=text], input[type=search], input[type=number]");
    if (!(event.ctrlKey || event.metaKey) || writing) return;
    const key = event.key.toLowerCase();
    if (key === "z") (event.shiftKey ? redo : undo)();
    else if (key === "y") redo();
    else return;
    event.preventDefault();
  });

  const comeHere = ({ kind }) => { if (kind === "here") root.scrollIntoView({ block: "start" }); };
  model.on("msg:custom", comeHere);
  // A card of the explorer asks for its feature to be painted; a button leads back to it.
  const fromCard = (event) => {
    if (!edit || event.defaultPrevented) return; // another painter took it
    event.preventDefault();
    use(event.detail.feature, false);
    at("back").hidden = false;
    at("back").onclick = () => { at("back").hidden = true; event.detail.back(); };
    root.scrollIntoView({ block: "start" });
    canvas.focus({ preventScroll: true });
  };
  document.addEventListener("sae-paint", fromCard);
  wire.ask("hello");
  return () => { model.off("msg:custom", comeHere); document.removeEventListener("sae-paint", fromCard); wire.close(); };
}

export default { render };
