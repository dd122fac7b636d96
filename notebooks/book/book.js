// What the pages do beyond links: theme, contents on phones, code folding, figures enlarged, search, filters, arrow keys.
"use strict";

const $ = selector => document.querySelector(selector);
const $$ = selector => [...document.querySelectorAll(selector)];

/* A setting of the reader; where there is no storage (some browsers on file:) it lasts as long as the page. */
const remembered = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* nothing to remember it in */ }
  return null;
};

/* Theme */
const dark = matchMedia("(prefers-color-scheme: dark)");
$("#theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
  remembered("book-theme", document.documentElement.dataset.theme);
});

/* Contents on phones */
const openMenu = open => {
  document.body.classList.toggle("menu-open", open);
  $("#menu").setAttribute("aria-expanded", open);
  if (open) ($("#contents [aria-current]") || $("#contents a")).focus();
};
$("#menu").addEventListener("click", () => openMenu(!document.body.classList.contains("menu-open")));
document.addEventListener("click", event => {
  if (document.body.classList.contains("menu-open") && !event.target.closest("#contents, #menu")) openMenu(false);
});
$("#contents [aria-current]")?.scrollIntoView({ block: "center" });

/* Code is folded; whoever wants to see it all sees it on every page */
const showCode = open => {
  $$("details.code").forEach(code => { code.open = open; });
  $("#code").setAttribute("aria-pressed", open);
};
if ($("#code")) {
  $("#code").addEventListener("click", () => {
    const open = $("#code").getAttribute("aria-pressed") === "false";
    showCode(open);
    remembered("book-code", open ? "shown" : "hidden");
  });
  if (remembered("book-code") === "shown") showCode(true);
}

/* The section that is being read; on narrow screens the list of sections starts closed */
const toc = $(".toc");
if (toc) {
  if (!matchMedia("(min-width: 80rem)").matches) toc.querySelector("details").open = false;
  const links = new Map($$(".toc a").map(link => [decodeURIComponent(link.hash.slice(1)), link]));
  const headings = $$("main h2").filter(heading => links.has(heading.id));
  const mark = () => {
    const above = headings.filter(heading => heading.getBoundingClientRect().top < 160).pop();
    links.forEach((link, id) => link.toggleAttribute("aria-current", id === above?.id));
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
}

/* Figures enlarged. Without this script the links open the files. */
const zooms = $$("a.zoom"), lightbox = $("#lightbox");
let shown = 0;
const enlarge = number => {
  shown = (number + zooms.length) % zooms.length;
  const image = zooms[shown].querySelector("img"), large = lightbox.querySelector("img");
  large.src = zooms[shown].href;
  large.alt = image.alt;
  lightbox.querySelector("p").textContent = image.alt;
  $("#place").textContent = `${shown + 1} of ${zooms.length}`;
};
zooms.forEach((zoom, number) => zoom.addEventListener("click", event => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  enlarge(number);
  lightbox.showModal();
}));
$("#earlier").addEventListener("click", () => enlarge(shown - 1));
$("#later").addEventListener("click", () => enlarge(shown + 1));
lightbox.addEventListener("click", event => { if (event.target === lightbox) lightbox.close(); });
lightbox.addEventListener("close", () => zooms[shown].focus());

/* Words that no caption holds: the pocket model never learnt them */
const unlearnt = words => words.filter(word => /^\p{L}+$/u.test(word) && !window.BOOK_WORDS.some(learnt => learnt.startsWith(word)));
const NEVER = words => `The pocket model never learnt: ${words.join(", ")}.`;

/* Search: every word must begin a word of the entry; titles count more than text, features come before pages. */
const MOST = 40, MOST_FEATURES = 12, query = $("#query"), results = $("#results");
const escaped = text => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const begins = word => new RegExp(`(?<![\\p{L}\\p{N}])${escaped(word)}`, "giu");
const whole = word => new RegExp(`(?<![\\p{L}\\p{N}.])${escaped(word)}(?![\\p{L}\\p{N}])`, "iu");
const hits = (text, pattern) => (text.match(pattern) || []).length;

let loading;
const loadIndex = () => loading ??= new Promise((done, failed) => {
  const script = Object.assign(document.createElement("script"), { src: "assets/search.js" });
  script.onload = () => done(window.BOOK_INDEX);
  script.onerror = () => { loading = undefined; failed(new Error("assets/search.js is missing")); };
  document.head.append(script);
});

const find = (index, words) => {
  const patterns = words.map(begins), found = [];
  for (const [address, page, title, text] of index) {
    let score = 0;
    for (const pattern of patterns) {
      const named = title ? hits(title, pattern) : 0.7 * hits(page, pattern);
      const worth = 8 * named / Math.sqrt((title || page).split(" ").length) + Math.log1p(hits(text, pattern));
      if (!worth && !(title && hits(page, pattern))) { score = 0; break; }
      score += worth;
    }
    if (score) found.push({ address, page, title, text, score });
  }
  return found.sort((a, b) => b.score - a.score);
};

const snippet = (text, words) => {
  const places = words.map(word => text.search(begins(word))).filter(at => at >= 0);
  const first = places.length ? Math.max(0, Math.min(...places) - 60) : 0;
  const start = first ? text.indexOf(" ", first) + 1 : 0;
  const span = document.createElement("span"), part = text.slice(start, start + 180);
  const pieces = part.split(new RegExp(`((?<![\\p{L}\\p{N}])(?:${words.map(escaped).join("|")}))`, "iu"));
  span.append(start ? "… " : "", ...pieces.map((piece, i) => i % 2 ? Object.assign(document.createElement("mark"), { textContent: piece }) : piece));
  if (start + 180 < text.length) span.append(" …");
  return span;
};

const line = (found, words) => {
  const item = document.createElement("li"), link = Object.assign(document.createElement("a"), { href: found.address });
  const head = Object.assign(document.createElement("b"), { textContent: found.title || found.page });
  link.append(head, found.title ? ` ${found.page}` : "", snippet(found.text, words));
  item.append(link);
  return item;
};

const asked = () => query.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
const heading = text => Object.assign(document.createElement("li"), { className: "part", textContent: text });
const search = async () => {
  results.hidden = !asked().length;
  if (results.hidden) return;
  const index = await loadIndex(), words = asked(); // what stands there now: more may have been typed
  const found = find(index, words), never = unlearnt(words);
  const features = found.filter(each => each.address.startsWith("gallery_")), pages = found.filter(each => !features.includes(each));
  const first = features.slice(0, pages.length ? MOST_FEATURES : MOST), then = pages.slice(0, MOST - first.length);
  const counted = (all, some, name) => `${all.length} ${name}${all.length === 1 ? "" : "s"}${some.length < all.length ? `, the best ${some.length}` : ""}`;
  const nothing = found.length ? [] : [`Nothing found for “${query.value.trim()}”.`];
  // A word of the pages, such as "variance", is none that the model should have learnt.
  const strange = never.filter(word => !pages.some(({ title, page, text }) => whole(word).test(`${title} ${page} ${text}`)));
  $("#found").textContent = [...(strange.length ? [NEVER(strange)] : []), ...nothing].join(" ");
  $("#found").hidden = !$("#found").textContent;
  results.querySelector("ol").replaceChildren(
    ...(first.length ? [heading(counted(features, first, "feature"))] : []), ...first.map(each => line(each, words)),
    ...(then.length ? [heading(counted(pages, then, "place"))] : []), ...then.map(each => line(each, words)),
  );
};
query.addEventListener("input", search);
query.addEventListener("focus", () => { loadIndex(); search(); });
$(".search").addEventListener("keydown", event => {
  const places = [query, ...results.querySelectorAll("a")], at = places.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    places[Math.max(0, Math.min(places.length - 1, at + step))].focus();
  } else if (event.key === "Enter" && at === 0) {
    places[1]?.click();
  } else if (event.key === "Escape") {
    query.value = "";
    results.hidden = true;
    query.blur();
  }
});
document.addEventListener("click", event => { if (!event.target.closest(".search") || event.target.closest("#results a")) results.hidden = true; });

/* Verdicts by word; "#only-fails" chooses one */
const buttons = $$(".filter [data-only]");
const only = word => {
  buttons.forEach(button => button.setAttribute("aria-pressed", button.dataset.only === word));
  const kept = $$(".verdicts li").filter(row => !(row.hidden = word && row.dataset.word !== word));
  $("#shown").textContent = `${kept.length} verdicts`;
};
const fromAddress = () => {
  const chosen = buttons.find(button => `#${button.id}` === location.hash);
  if (chosen) only(chosen.dataset.only);
};
buttons.forEach(button => button.addEventListener("click", () => only(button.dataset.only)));
if (buttons.length) {
  addEventListener("hashchange", fromAddress);
  fromAddress();
}

/* Cards of a block by word or number, in an order; so many stand on the page, more when its end comes into view */
const PART = 24, wanted = $("#wanted"), order = $("#order"), cards = $$(".cards li"), more = $("#more");
let most = PART, fitting = cards;
const lay = () => {
  cards.forEach(card => { card.hidden = true; });
  fitting.slice(0, most).forEach(card => { card.hidden = false; });
  more.hidden = fitting.length <= most;
};
const showMore = () => { most += PART; lay(); };
const arrange = async () => {
  const words = wanted.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
  const fits = ({ text, number }) => words.every(word => /^\d+$/.test(word) ? number === word : begins(word).test(text));
  const sign = order.value === "number" ? 1 : -1;
  cards.sort((a, b) => sign * (a.dataset[order.value] - b.dataset[order.value]) || a.dataset.number - b.dataset.number);
  $(".cards").append(...cards);
  fitting = cards.filter(card => fits(card.dataset));
  most = PART;
  lay();
  $("#shown").textContent = `${fitting.length} feature${fitting.length === 1 ? "" : "s"}`;
  $("#none").hidden = fitting.length > 0;
  if (fitting.length) return;
  await loadIndex();
  const never = unlearnt(words);
  $("#none span").textContent = never.length ? NEVER(never) : "No feature of this block fits.";
};
const goTo = () => {
  const place = fitting.findIndex(card => `#${card.id}` === location.hash);
  if (place < 0) return;
  most = Math.max(most, PART * Math.ceil((place + 1) / PART));
  lay();
  fitting[place].scrollIntoView();
};
if (wanted) {
  wanted.addEventListener("input", arrange);
  order.addEventListener("change", arrange);
  more.addEventListener("click", showMore);
  new IntersectionObserver(seen => { if (seen.some(each => each.isIntersecting)) showMore(); }, { rootMargin: "300px" }).observe(more);
  if (wanted.value || order.value !== "reads") arrange(); else lay();
  addEventListener("hashchange", goTo);
  goTo();
}
$$("button.maps").forEach(maps => maps.addEventListener("click", () => {
  maps.setAttribute("aria-pressed", maps.getAttribute("aria-pressed") === "false");
}));

/* Keys */
document.addEventListener("keydown", event => {
  if (lightbox.open) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); enlarge(shown + step); }
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) { openMenu(false); $("#menu").focus(); }
  if (event.target.closest("input, select, textarea, .scroll")) return;
  if (event.key === "/") { event.preventDefault(); query.focus(); query.select(); }
  const turn = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
  if (turn) $(`.turn a[rel=${turn}]`)?.click();
});
