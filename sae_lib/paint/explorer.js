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
      <small>first those with a clear meaning; multiples of the mean activation, share of the positions</small></span> <button data-testid="whole">Whole picture</button></div>
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
<div class="bar answer" hidden><span data-testid="unlearnt" role="status"></span><button data-testid="weak" aria-pressed="false" hidden></button></div>
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
  let fits = null; // what a search found: ids of features and of weak hits, best first; null for all features
  let waiting = false, searching = null; // whether a search was begun, and the number of the one whose answer is shown
  let reading = null, asking = null, grid = 0, cell = null, cursor = null;
  let asked = [], seen = true; // the cards whose pictures the kernel was asked for last; whether the cards are on the screen
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
    found({ number, found, weak, unlearnt }) {
      if (number !== searching) return; // of a search before the last
      [fits, waiting] = [{ found, weak, unlearnt }, false];
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
      if (message.number !== reading) return; // meanwhile another position was asked for
      if (cursor && grid) cursor = moved(cursor, grid, message.grid);
      ({ grid, cell } = message);
      wire.say(message.notes.join(" "));
      at("where").textContent = cell ? `Fire at row ${cell[0]}, column ${cell[1]} of ${grid} × ${grid}` : "Active in the whole picture";
      at("fires-here").replaceChildren(...message.found.map((each) => make("li", {}, make("button",
        { class: "line", "data-feature": each.id, title: "Show its card", onclick: () => lookFor(each.id) }, ...describe(each, about.blocks)))));
      if (!message.found.length) at("fires-here").append(make("li", { class: "none" }, "none"));
      paint();
      reading = null;
      idle();
    },
    refused({ number, sentence }) {
      wire.say(sentence);
      if (number === reading) { reading = null; at("where").textContent = ""; }
      if (number === searching) waiting = false;
      if (about) idle(); else status.textContent = "stopped";
    },
    lost() { [reading, waiting, status.textContent] = [null, false, "no kernel"]; },
  });

  function idle() {
    if (waiting || reading !== null) return;
    status.textContent = `${order.length.toLocaleString("en")} feature${order.length === 1 ? "" : "s"}`;
    status.dataset.revision = Number(status.dataset.revision) + 1;
  }

  // Which cards, in which order.
  function arrange() {
    const by = at("sort").value, of = at("block").value, unfolded = at("weak").getAttribute("aria-pressed") === "true";
    const hits = fits && [...fits.found, ...(unfolded ? fits.weak : [])];
    const shown = (hits ? hits.map((id) => byId.get(id)) : rows).filter((row) => !of || row.block === of);
    at("unlearnt").textContent = !fits ? "" : fits.unlearnt.length ? `the pocket model never learnt: ${fits.unlearnt.join(", ")}`
      : fits.found.length ? "" : "no feature is called so";
    at("weak").hidden = !fits?.weak.length;
    at("weak").textContent = `${unfolded ? "Hide" : "Show"} ${fits?.weak.length} weak hit${fits?.weak.length === 1 ? "" : "s"}`;
    root.querySelector(".answer").hidden = !at("unlearnt").textContent && at("weak").hidden;
    const place = (row) => [row.b, row.number];
    const drawn = ({ draws }) => Number.isNaN(draws) ? -Infinity : draws; // those that were not tried come last
    const less = { reads: (a, b) => b.reads - a.reads, draws: (a, b) => (drawn(a) === drawn(b) ? 0 : drawn(b) - drawn(a)), rate: (a, b) => b.rate - a.rate,
      number: (a, b) => a.number - b.number || a.b - b.b, block: (a, b) => a.b - b.b || a.number - b.number }[by];
    order = less ? shown.sort((a, b) => less(a, b) || place(a)[0] - place(b)[0] || place(a)[1] - place(b)[1]) : shown;
    clear();
    placeCards();
    idle();
  }
  function clear() {
    scroller.scrollTop = 0;
    for (const card of cards.values()) card.remove();
    cards.clear();
  }
  function placeCards() {
    if (!about || waiting) return;
    const across = Math.max(1, Math.floor(scroller.clientWidth / WIDTH)), width = scroller.clientWidth / across;
    const lines = Math.ceil(order.length / across);
    const first = Math.floor(scroller.scrollTop / HEIGHT), last = Math.ceil((scroller.scrollTop + scroller.clientHeight) / HEIGHT);
    const from = Math.max(0, first - AHEAD), to = Math.min(lines, last + AHEAD);
    space.style.height = `${lines * HEIGHT}px`;
    const wanted = new Map(order.slice(from * across, to * across).map((row, i) => [row.id, [row, from * across + i]]));
    for (const [id, card] of cards) if (!wanted.has(id)) { card.remove(); cards.delete(id); }
    for (const [id, [row, i]] of wanted) {
      if (!cards.has(id)) { cards.set(id, blank(row)); fill(cards.get(id), id); space.append(cards.get(id)); }
      const { style } = cards.get(id);
      style.width = `${width - 8}px`;
      style.transform = `translate(${(i % across) * width}px, ${Math.floor(i / across) * HEIGHT}px)`;
    }
    need(order.slice(first * across, last * across).map(({ id }) => id));
  }
  // Asks for the pictures of the cards in view once the scrolling rests; those that left the view are not drawn any more.
  function need(inView) {
    const pending = (ids) => ids.filter((id) => !panels.has(id)), wanted = seen ? pending(inView) : [];
    if (pending(asked).some((id) => !wanted.includes(id))) {
      wire.ask("cancel", { of: "panels" });
      asked = [];
    }
    clearTimeout(asking);
    if (wanted.some((id) => !asked.includes(id))) asking = setTimeout(() => { asked = wanted; wire.ask("panels", { features: wanted }); }, 120);
  }
  function blank(row) {
    const { color, mark } = about.blocks[row.b];
    return make("article", { class: "card", "data-testid": "card", "data-feature": row.id },
      make("header", {}, make("span", { class: "mark", style: `color: ${color}`, "aria-hidden": "true" }, mark),
        make("span", { class: "id" }, row.id), make("span", { class: "numbers" }, `fires at ${(100 * row.rate).toPrecision(2)} %`),
        make("button", { class: "small", "data-testid": "paint", title: "Paint with this feature", "aria-label": `Paint with ${row.id}`, onclick: () => paintWith(row) }, "Paint")),
      make("div", { class: "says" }, make("span", { class: "meaning" }, row.meaning), make("span", { class: "numbers" }, worth(row))),
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

  // To the painter on this page, which calls `back` when its reader wants to return.
  function paintWith({ id, block, meaning }) {
    const back = () => { root.scrollIntoView({ block: "start" }); cards.get(id)?.querySelector("button").focus({ preventScroll: true }); };
    const event = new CustomEvent("sae-paint", { cancelable: true, detail: { feature: { id, block, meaning }, back } });
    if (document.dispatchEvent(event)) wire.say("There is no painter on this page: run the painter's cell first.");
  }

  // The prompt's picture, and what fires where.
  function read(where) {
    const number = wire.ask("read", { prompt: at("prompt").value, seed: Math.trunc(Number(at("seed").value)) || 0, cell: where });
    if (number === null) return;
    reading = number;
    at("where").textContent = status.textContent = "reading …";
    at("fires-here").replaceChildren();
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
  function wait() { // in place of what was found before
    [searching, waiting, status.textContent] = [null, true, "searching …"];
    at("weak").setAttribute("aria-pressed", "false");
    root.querySelector(".answer").hidden = true;
    clear();
    space.style.height = 0;
    need([]);
  }
  function search() {
    const text = at("explorer-search").value.trim();
    clearTimeout(typing);
    if (text) {
      at("sort").value = "fit";
      wait();
      searching = wire.ask("search", { text });
      return;
    }
    [searching, fits, waiting] = [null, null, false];
    if (at("sort").value === "fit") at("sort").value = about.known ? "reads" : "rate";
    arrange();
  }
  function lookFor(id) { at("explorer-search").value = id; at("block").value = ""; search(); }
  at("explorer-search").addEventListener("input", () => { if (!about) return; wait(); clearTimeout(typing); typing = setTimeout(search, 60); });
  at("weak").addEventListener("click", () => {
    at("weak").setAttribute("aria-pressed", String(at("weak").getAttribute("aria-pressed") !== "true"));
    arrange();
  });
  for (const name of ["sort", "block"]) at(name).addEventListener("change", () => about && arrange());
  scroller.addEventListener("scroll", () => requestAnimationFrame(placeCards));
  const resized = new ResizeObserver(() => placeCards());
  resized.observe(scroller);
  const watched = new IntersectionObserver((entries) => { seen = entries.at(-1).isIntersecting; placeCards(); });
  watched.observe(scroller);

  wire.ask("hello");
  return () => {
    resized.disconnect();
    watched.disconnect();
    wire.close();
    for (const { urls } of panels.values()) urls.forEach((url) => URL.revokeObjectURL(url));
  };
}

export default { render };
