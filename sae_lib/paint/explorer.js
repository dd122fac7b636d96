// The features as cards. Only the cards in view exist, and only their pictures are asked for.

const TEMPLATE = `
<div class="bar">
  <label class="grow">Prompt <input data-testid="prompt" type="text" spellcheck="false"></label>
  <label>Seed <input data-testid="seed" type="number" step="1"></label>
  <button data-testid="read">Draw and read</button>
</div>
<div class="reading">
  <figure><figcaption><b>Picture</b> – click a position</figcaption>
    <div class="frame"><img src="${EMPTY}" data-testid="picture" alt="The prompt's picture">
      <canvas data-testid="position-image" class="brush" width="512" height="512" tabindex="0" role="application"
        aria-label="Positions. Arrow keys move, Enter shows the features that fire there."></canvas></div></figure>
  <div class="fires">
    <div class="heading"><span><span data-testid="where"></span>
      <small>multiples of the mean activation, share of the positions</small></span> <button data-testid="whole">Whole picture</button></div>
    <ul data-testid="fires-here" class="results" aria-label="Features that fire"></ul>
  </div>
</div>
<div class="bar">
  <label class="grow">Search <input data-testid="explorer-search" type="search" spellcheck="false"
    placeholder="a word (red, star, night) or a number (up.1.2/17)"></label>
  <label>Block <select data-testid="block"><option value="">all</option></select></label>
  <label>Sort by <select data-testid="sort">
    <option value="fit">fit to the search</option><option value="reads" selected>how well it reads</option>
    <option value="draws">how well it draws</option>
    <option value="rate">firing rate</option><option value="number">number</option><option value="block">block</option>
  </select></label>
  <span data-testid="status" role="status" data-revision="0">connecting to the kernel …</span>
</div>
<div data-testid="alert" role="alert" class="alert"></div>
<div class="cards" tabindex="0" role="region" aria-label="Cards of the features, to scroll"><div class="space"></div></div>`;

const WIDTH = 330, HEIGHT = 226, TILE = 60, AHEAD = 1, KEPT = 400;

function render({ model, el }) {
  const root = make("section", { class: "sae-explorer sae-widget", "aria-label": "Feature explorer", "data-lm-suppress-shortcuts": "true" });
  root.innerHTML = TEMPLATE;
  el.append(root);
  const at = (name) => root.querySelector(`[data-testid="${name}"]`);
  const scroller = root.querySelector(".cards"), space = root.querySelector(".space");
  const canvas = at("position-image"), pen = canvas.getContext("2d"), status = at("status");

  let about = null, rows = [], order = [], byId = new Map();
  let fits = null; // ids that a search found, best first; null for all features
  let searching = null, reading = null, asking = null, grid = 0, cell = null, cursor = null;
  const panels = new Map(), cards = new Map();

  const wire = connect(model, root, {
    welcome(message, _blobs, tables) {
      about = message;
      const [block, number, rate, reads, draws, label] = tables.map((each) => new Float32Array(each.buffer.slice(each.byteOffset, each.byteOffset + each.byteLength)));
      rows = Array.from(block, (b, i) => {
        const { name } = about.blocks[b];
        return { block: name, b, number: number[i], id: `${name}/${number[i]}`, rate: rate[i],
          reads: about.known ? reads[i] : null, draws: draws[i], meaning: about.labels[label[i]] };
      });
      byId = new Map(rows.map((row) => [row.id, row]));
      if (!about.known) at("sort").value = "rate";
      at("block").append(...about.blocks.map(({ name, mark }) => make("option", { value: name }, `${mark} ${name}`)));
      at("prompt").value = about.edit.prompt;
      at("seed").value = about.edit.seed;
      read(null);
      arrange();
    },
    progress({ done, count }) {
      if (!about) status.textContent = `reading ${count} pictures, once: ${done} done`;
    },
    found({ number, found }) {
      if (number !== searching) return;
      fits = found;
      arrange();
    },
    panel({ feature, sentence, top }, blobs) {
      panels.set(feature, { sentence, top, urls: blobs.map((blob) => URL.createObjectURL(blob)) });
      for (const [old, { urls }] of panels) {
        if (panels.size <= KEPT) break;
        if (cards.has(old)) continue;
        urls.forEach((url) => URL.revokeObjectURL(url));
        panels.delete(old);
      }
      if (cards.has(feature)) fill(cards.get(feature), feature);
    },
    async read(message, [blob]) {
      if (message.number !== reading) return;
      await show(at("picture"), blob);
      if (cursor && grid) cursor = moved(cursor, grid, message.grid);
      ({ grid, cell } = message);
      wire.say(message.notes.join(" "));
      at("where").textContent = cell ? `Fire at row ${cell[0]}, column ${cell[1]} of ${grid} × ${grid}` : "Active in the whole picture";
      at("fires-here").replaceChildren(...message.found.map((each) => make("li", {}, make("button",
        { class: "line", "data-feature": each.id, title: "Show its card", onclick: () => lookFor(each.id) }, ...describe(each, about.blocks)))));
      if (!message.found.length) at("fires-here").append(make("li", { class: "none" }, "none"));
      paint();
      idle();
    },
    refused({ sentence }) { wire.say(sentence); if (about) idle(); else status.textContent = "stopped"; },
    lost() { status.textContent = "no kernel"; },
  });

  function idle() {
    status.textContent = `${order.length.toLocaleString("en")} features`;
    status.dataset.revision = Number(status.dataset.revision) + 1;
  }

  // Which cards, in which order.
  function arrange() {
    const by = at("sort").value, of = at("block").value;
    const shown = (fits ? fits.map((id) => byId.get(id)) : rows).filter((row) => !of || row.block === of);
    const place = (row) => [row.b, row.number];
    const drawn = ({ draws }) => Number.isNaN(draws) ? -Infinity : draws; // those that were not tried come last
    const less = { reads: (a, b) => b.reads - a.reads, draws: (a, b) => (drawn(a) === drawn(b) ? 0 : drawn(b) - drawn(a)), rate: (a, b) => b.rate - a.rate,
      number: (a, b) => a.number - b.number || a.b - b.b, block: (a, b) => a.b - b.b || a.number - b.number }[by];
    order = less ? shown.sort((a, b) => less(a, b) || place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]) : shown;
    scroller.scrollTop = 0;
    for (const card of cards.values()) card.remove();
    cards.clear();
    placeCards();
    if (reading === null || status.textContent.endsWith("features")) idle();
  }
  function placeCards() {
    if (!about) return;
    const across = Math.max(1, Math.floor(scroller.clientWidth / WIDTH)), width = scroller.clientWidth / across;
    const lines = Math.ceil(order.length / across);
    const from = Math.max(0, Math.floor(scroller.scrollTop / HEIGHT) - AHEAD);
    const to = Math.min(lines, Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT) + AHEAD);
    space.style.height = `${lines * HEIGHT}px`;
    const wanted = new Map(order.slice(from * across, to * across).map((row, i) => [row.id, [row, from * across + i]]));
    for (const [id, card] of cards) if (!wanted.has(id)) { card.remove(); cards.delete(id); }
    for (const [id, [row, i]] of wanted) {
      if (!cards.has(id)) { cards.set(id, blank(row)); fill(cards.get(id), id); space.append(cards.get(id)); }
      const { style } = cards.get(id);
      style.width = `${width - 8}px`;
      style.transform = `translate(${(i % across) * width}px, ${Math.floor(i / across) * HEIGHT}px)`;
    }
    clearTimeout(asking);
    asking = setTimeout(() => { // once the scrolling rests
      const features = [...wanted.keys()].filter((id) => !panels.has(id));
      if (features.length) wire.ask("panels", { features });
    }, 120);
  }
  function blank(row) {
    const { color, mark } = about.blocks[row.b];
    return make("article", { class: "card", "data-testid": "card", "data-feature": row.id },
      make("header", {}, make("span", { class: "mark", style: `color: ${color}`, "aria-hidden": "true" }, mark),
        make("span", { class: "id" }, row.id), make("span", { class: "numbers" }, `fires at ${(100 * row.rate).toPrecision(2)} %`)),
      make("div", { class: "says" }, make("span", { class: "meaning" }, row.meaning || (about.known ? "never fired" : "")), make("span", { class: "numbers" }, worth(row))),
      make("div", { class: "panel" }, make("p", { class: "none" }, "…")));
  }
  function fill(card, id) {
    const panel = panels.get(id);
    if (!panel) return;
    const body = card.querySelector(".panel");
    if (panel.sentence) return body.replaceChildren(make("p", { class: "none" }, panel.sentence));
    const [icon, top, strip] = panel.urls;
    const image = (src, alt, tiles) => make("img", { src, alt, style: `width: ${tiles * TILE}px; height: ${TILE}px` });
    body.replaceChildren(
      make("figure", {}, image(icon, `Icon of ${id}`, 1), make("figcaption", {}, "icon")),
      make("figure", {}, image(top, `Pictures in which ${id} is most active, with its maps`, panel.top), make("figcaption", {}, "most active in, and where")),
      make("figure", { class: "strip" }, image(strip, `The first picture with ${id} modulated`, about.betas.length),
        make("figcaption", {}, ...about.betas.map((beta) => make("span", {}, `β ${beta > 0 ? "+" : "−"}${Math.abs(beta)}`)))));
  }

  // The prompt's picture, and what fires where.
  function read(where) {
    const asked = wire.ask("read", { prompt: at("prompt").value, seed: Math.trunc(Number(at("seed").value)) || 0, cell: where });
    if (asked !== null) [reading, status.textContent] = [asked, "reading …"];
  }
  function paint() {
    if (!grid) return; // nothing was read yet
    const side = canvas.width / grid;
    pen.clearRect(0, 0, canvas.width, canvas.height);
    if (cell) outline(pen, cell, side);
    if (cursor) outline(pen, cursor, side);
  }
  canvas.addEventListener("pointerup", (event) => { if (!grid) return; cell = cellAt(event, canvas, grid); paint(); read(cell); });
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) { cursor ??= cell ?? [0, 0]; paint(); } });
  canvas.addEventListener("blur", () => { cursor = null; paint(); });
  canvas.addEventListener("keydown", (event) => {
    if (!grid) return;
    const next = cellBeside(event.key, cursor ?? [0, 0], grid);
    if (next) cursor = next;
    else if (event.key === "Enter" || event.key === " ") read(cursor ?? [0, 0]);
    else return;
    event.preventDefault();
    paint();
  });
  at("whole").addEventListener("click", () => read(null));
  at("read").addEventListener("click", () => read(null));
  for (const name of ["prompt", "seed"]) at(name).addEventListener("change", () => read(null));

  let typing = null;
  function search() {
    const text = at("explorer-search").value.trim();
    if (text) {
      at("sort").value = "fit";
      searching = wire.ask("search", { text });
      return;
    }
    searching = fits = null;
    if (at("sort").value === "fit") at("sort").value = about.known ? "reads" : "rate";
    arrange();
  }
  function lookFor(id) { at("explorer-search").value = id; at("block").value = ""; search(); }
  at("explorer-search").addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, 150); });
  for (const name of ["sort", "block"]) at(name).addEventListener("change", () => about && arrange());
  scroller.addEventListener("scroll", () => requestAnimationFrame(placeCards));
  const resized = new ResizeObserver(() => placeCards());
  resized.observe(scroller);

  wire.ask("hello");
  return () => {
    resized.disconnect();
    wire.close();
    for (const { urls } of panels.values()) urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
