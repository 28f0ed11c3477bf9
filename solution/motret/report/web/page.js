// Lists the queries, opens one, and draws its candidates: people of lines on a round floor, all at one time, from one camera.

const data = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const queries = data.queries;
const single = queries.length === 1;
const known = queries.some((query) => query.rank !== null);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const best = Math.max(...queries.flatMap((query) => query.candidates.map((candidate) => candidate.score)), 1e-9);

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// ---- the list

const collator = new Intl.Collator("en", { numeric: true });
const byId = (a, b) => collator.compare(a.id, b.id);
const byWords = (a, b) => collator.compare(a.captions[0], b.captions[0]);
const worst = (query) => query.rank ?? query.gallery + 1;
const top = (query) => query.candidates[0].score;
const lead = ({ candidates: [first, second] }) => (second ? first.score - second.score : Infinity);
const ORDERS = known
  ? {
      "hardest first": { by: (a, b) => worst(b) - worst(a) || byId(a, b) },
      "easiest first": { by: (a, b) => worst(a) - worst(b) || byId(a, b) },
      "by id": { by: byId },
      "by caption": { by: byWords },
    }
  : {
      "by id": { by: byId },
      "by caption": { by: byWords },
      "lowest best score": { by: (a, b) => top(a) - top(b) },
      "highest best score": { by: (a, b) => top(b) - top(a) },
    };
ORDERS["smallest lead first"] = {
  by: (a, b) => lead(a) - lead(b) || byId(a, b),
  value: (query) => (query.candidates.length > 1 ? `lead ${lead(query).toFixed(2)}` : "no second candidate"),
  means: "Lead: the score of the first candidate minus that of the second.",
};
if (queries.some((query) => query.disagreement !== null)) {
  ORDERS["most disagreement first"] = {
    by: (a, b) => b.disagreement - a.disagreement || byId(a, b),
    value: (query) => `disagreement ${query.disagreement.toFixed(2)}`,
    means:
      "Disagreement: how differently the members of the ensemble rank the candidates; 1 minus Spearman's rank correlation, " +
      "the mean over all pairs of members. 0: the same order; 1: unrelated.",
  };
}
const haystacks = queries.map((query) => [query.id, ...query.captions].join("\n").toLowerCase());
let listed = []; // numbers of the queries in the list, as they stand there
let open = null; // number of the query that is shown
let stays = false; // whether the focus stays in the list when the next one is shown

function standing(query) {
  return query.rank === null ? `best of ${query.gallery}: ${query.candidates[0].motion}` : `rank ${query.rank} of ${query.gallery}`;
}

function entry(number) {
  const query = queries[number];
  const link = make("a");
  link.href = `#query-${number}`;
  link.dataset.number = number;
  const mark = make("span", query.rank === null ? "" : `mark ${query.rank === 1 ? "first" : query.rank <= 10 ? "near" : ""}`);
  mark.setAttribute("aria-hidden", "true");
  link.append(mark, make("span", "words", query.captions.join(" / ")), make("span", "under"));
  const item = make("li");
  item.append(link);
  return item;
}

const entries = single ? [] : queries.map((_, number) => entry(number));

function list() {
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const { by, value, means } = ORDERS[at("sort").value];
  listed = queries.map((_, number) => number).filter((number) => words.every((word) => haystacks[number].includes(word)));
  listed.sort((a, b) => by(queries[a], queries[b]));
  for (const number of listed) {
    const query = queries[number];
    linkOf(number).lastChild.textContent = [query.id, standing(query), ...(value ? [value(query)] : [])].join(" · ");
  }
  at("means").textContent = means ?? "";
  at("means").hidden = !means;
  at("queries").replaceChildren(...listed.map((number) => entries[number]));
  at("count").textContent = words.length ? `${listed.length} of ${queries.length} queries` : `${queries.length} queries`;
  if (open !== null) placeOf();
}

function linkOf(number) {
  return entries[number].firstChild;
}

// ---- a query

function say(text) {
  at("said").textContent = text;
}

function placeOf() {
  const place = listed.indexOf(open);
  at("place").textContent = place < 0 ? "not in the list" : `${place + 1} of ${listed.length}`;
  at("previous").disabled = place === 0 || !listed.length;
  at("next").disabled = place === listed.length - 1 || !listed.length;
}

function step(by) {
  const place = open === null ? -1 : listed.indexOf(open);
  const next = listed[place < 0 ? 0 : place + by];
  if (next === undefined || next === open) return;
  stays = at("list").contains(document.activeElement);
  if (stays && document.activeElement !== at("search")) linkOf(next).focus();
  location.hash = `query-${next}`;
}

function searchKey(event) {
  // Enter goes to the first query that is found; the arrows open one after the other, while the search can go on.
  const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (event.isComposing || !listed.length || (event.key !== "Enter" && !by)) return;
  event.preventDefault();
  if (by) step(by);
  else if (open === listed[0]) at("caption").focus();
  else {
    stays = false;
    location.hash = `query-${listed[0]}`;
  }
}

function card(candidate) {
  const motion = data.motions[candidate.at];
  const item = make("li", candidate.right ? "right" : "");
  item.tabIndex = -1;
  const figure = make("figure");
  const canvas = make("canvas");
  canvas.setAttribute("role", "img");
  const people = motion.persons === 2 ? "two persons" : "one person";
  const right = candidate.right ? ", the right motion" : "";
  canvas.setAttribute("aria-label", `Rank ${candidate.rank}${right}: ${candidate.motion}, ${people} as stick figures, ${motion.seconds.toFixed(1)} seconds`);
  const caption = make("figcaption");
  const who = make("div", "who");
  who.append(make("span", "rank", `${candidate.rank}.`), make("span", "name", candidate.motion));
  if (candidate.right) who.append(make("span", "badge", "✓ match"));
  const kept = motion.frames / data.fps;
  who.append(make("span", "long", kept < motion.seconds - 0.2 ? `${kept.toFixed(0)} of ${motion.seconds.toFixed(1)} s` : `${motion.seconds.toFixed(1)} s`));
  const score = make("div", "score");
  const bar = make("span", "bar");
  const filled = make("i");
  filled.style.width = `${Math.max(0, Math.min(1, candidate.score / best)) * 100}%`;
  bar.append(filled);
  bar.setAttribute("aria-hidden", "true");
  const value = make("span");
  value.append(make("span", "unseen", "score "), candidate.score.toFixed(2));
  score.append(bar, value);
  caption.append(who, score);
  if (candidate.captions.length) {
    const own = make("ul", "own");
    own.setAttribute("aria-label", "Its captions");
    own.append(...candidate.captions.map((text) => make("li", "", text)));
    caption.append(own);
  }
  figure.append(canvas, caption);
  item.append(figure);
  return { item, canvas, motion, at: candidate.at, seen: false, numbers: null };
}

function show(number) {
  const query = queries[number];
  if (open !== null && !single) linkOf(open).removeAttribute("aria-current");
  open = number;
  document.body.dataset.view = "query";
  at("overview").hidden = !single;
  at("query").hidden = false;
  at("caption").textContent = query.captions[0];
  at("captions").hidden = query.captions.length < 2;
  at("captions").replaceChildren(...query.captions.slice(1).map((text) => make("li", "", text)));
  at("show").hidden = query.rank === null;
  const answer = query.rank === null ? `${query.gallery} motions ranked` : `the right motion is ranked ${query.rank} of ${query.gallery}`;
  at("about").textContent = single ? answer : `${query.id}: ${answer}`;
  watcher.disconnect();
  sizes.disconnect();
  cards = query.candidates.map(card);
  at("candidates").replaceChildren(...cards.map((own) => own.item));
  for (const own of cards) {
    watcher.observe(own.canvas);
    sizes.observe(own.canvas);
    unpack(own.at).then((numbers) => {
      own.numbers = numbers;
      ask();
    });
  }
  at("legend").hidden = !cards.some((own) => own.motion.persons === 2);
  for (const name of ["radius", "reach"]) {
    const sizes = cards.map((own) => own.motion[name]).sort((a, b) => a - b);
    usual[name] = Math.min(2.5, Math.max(1, sizes[sizes.length >> 1]));
  }
  duration = Math.max(...cards.map((own) => (own.motion.frames - 1) / data.fps), 0.1);
  at("scrub").max = duration.toFixed(1);
  camera = { ...START };
  seek(0);
  play(playing);
  if (single) return;
  placeOf();
  linkOf(number).setAttribute("aria-current", "true");
  linkOf(number).scrollIntoView({ block: "nearest" });
  scrollTo(0, 0);
  if (!stays) at("caption").focus({ preventScroll: true });
  stays = false;
  say(`Query ${at("place").textContent}: ${query.captions[0]}; ${answer}`);
}

function showOverview() {
  if (open !== null) linkOf(open).removeAttribute("aria-current");
  open = null;
  cards = [];
  document.body.dataset.view = "overview";
  at("overview").hidden = false;
  at("query").hidden = true;
}

function route() {
  const found = /^#query-(\d+)$/.exec(location.hash);
  if (single) return;
  if (found && Number(found[1]) < queries.length) show(Number(found[1]));
  else if (!location.hash) showOverview();
}

// ---- motions

const unpacked = new Map();

function unpack(number) {
  // Undoes poses.pack: base64, zlib, the bytes of int16 differences in two planes, their running sum.
  if (!unpacked.has(number)) unpacked.set(number, inflate(data.motions[number]));
  return unpacked.get(number);
}

async function inflate(motion) {
  const text = atob(motion.data);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const width = count / motion.frames;
  const numbers = new Int16Array(count);
  for (let place = 0; place < count; place++) {
    const before = place < width ? 0 : numbers[place - width];
    numbers[place] = before + (planes[place] | (planes[count + place] << 8));
  }
  return numbers;
}

// ---- the player: one clock and one camera for all candidates

const START = { yaw: -0.35, pitch: 0.26 };
let cards = [];
let camera = { ...START };
let follows = false; // whether the camera goes along with the persons
let usual = { radius: 1.5, reach: 1.5 }; // metres around the middle that most candidates of this query need, standing and going along
let duration = 1;
let time = 0;
let playing = false;
let asked = false;
let last = 0;

function ask() {
  if (!asked) requestAnimationFrame(frame);
  asked = true;
}

function frame(now) {
  asked = false;
  if (playing && cards.length) {
    time += Math.min(0.1, Math.max(0, now - last) / 1000) * Number(at("speed").value);
    if (time > duration + 0.4) time = 0; // the last pose stays for a moment
    tell();
    ask();
  }
  last = now;
  for (const own of cards) if (own.seen && own.numbers) draw(own);
}

function tell() {
  const shown = Math.min(time, duration);
  at("scrub").value = shown;
  at("time").textContent = `${shown.toFixed(1)} of ${duration.toFixed(1)} s`;
}

function seek(to) {
  time = to;
  tell();
  ask();
}

function play(on) {
  playing = on;
  at("play").textContent = on ? "Pause" : "Play";
  if (on && time >= duration) time = 0;
  last = performance.now();
  ask();
}

function turn(yaw, pitch) {
  camera.yaw += yaw;
  camera.pitch = Math.min(1.5, Math.max(0.02, camera.pitch + pitch));
  ask();
}

const watcher = new IntersectionObserver((changes) => {
  for (const change of changes) {
    const own = cards.find((other) => other.canvas === change.target);
    if (own) own.seen = change.isIntersecting;
  }
  ask();
}, { rootMargin: "50px" });

const sizes = new ResizeObserver((changes) => {
  for (const { target, contentRect } of changes) {
    const density = Math.min(devicePixelRatio || 1, 2);
    target.width = Math.round(contentRect.width * density);
    target.height = Math.round(contentRect.height * density);
  }
  ask();
});

let colours = {};
function readColours() {
  // custom properties hold both schemes; the colour of an element is the one in force
  const probe = make("span");
  document.body.append(probe);
  for (const name of ["one", "two", "card", "floor", "ink"]) {
    probe.style.color = `var(--${name})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  ask();
}

// ---- drawing

function pose(own) {
  // Joints of both persons now, [x y z ...] in metres: between two frames on the straight line, after the last the last.
  const width = own.numbers.length / own.motion.frames;
  const exact = Math.min(time * data.fps, own.motion.frames - 1);
  const first = Math.floor(exact);
  const share = exact - first;
  const here = first * width;
  const there = Math.min(first + 1, own.motion.frames - 1) * width;
  const joints = new Float32Array(width);
  for (let place = 0; place < width; place++) {
    joints[place] = ((1 - share) * own.numbers[here + place] + share * own.numbers[there + place]) * data.step;
  }
  return joints;
}

function whereabouts(joints) {
  // The middle [x, z] between the pelvises.
  const sum = [0, 0];
  const width = data.count * 3;
  for (let place = 0; place < joints.length; place += width) {
    sum[0] += joints[place];
    sum[1] += joints[place + 2];
  }
  return sum.map((part) => (part * width) / joints.length);
}

function lens(canvas, radius, [centreX, centreZ]) {
  // World metres to pixels [x, y, pixels a metre, nearness], seen from a circle around the middle at hip height.
  const far = 2.5 * radius + 3;
  const wide = ((canvas.width / 2) * (far - 0.4 * radius)) / (radius + 0.1);
  const high = ((canvas.height / 2) * (far - 0.4 * radius)) / (1 + 0.2 * radius);
  const focus = Math.min(wide, high);
  const [sinYaw, cosYaw, sinPitch, cosPitch] = [Math.sin(camera.yaw), Math.cos(camera.yaw), Math.sin(camera.pitch), Math.cos(camera.pitch)];
  return (x, y, z) => {
    const across = cosYaw * (x - centreX) + sinYaw * (z - centreZ);
    const deep = cosYaw * (z - centreZ) - sinYaw * (x - centreX);
    const up = (y - 0.9) * cosPitch - deep * sinPitch;
    const near = (y - 0.9) * sinPitch + deep * cosPitch;
    const scale = focus / Math.max(far - near, 0.3);
    return [canvas.width / 2 + across * scale, canvas.height / 2 - up * scale, scale, near];
  };
}

function trace(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], place) => (place ? pen.lineTo(x, y) : pen.moveTo(x, y)));
}

function draw(own) {
  const pen = own.canvas.getContext("2d");
  const joints = pose(own);
  const need = follows ? "reach" : "radius";
  const radius = Math.max(usual[need], own.motion[need]);
  const middle = follows ? whereabouts(joints) : [0, 0];
  const project = lens(own.canvas, radius, middle);
  pen.clearRect(0, 0, own.canvas.width, own.canvas.height);
  pen.lineCap = pen.lineJoin = "round";
  floor(pen, project, radius, middle);
  const shapes = [];
  for (let person = 0; person < own.motion.persons; person++) shapes.push(...body(pen, joints, person, project));
  shapes.sort((a, b) => a.near - b.near);
  for (const shape of shapes) stroke(pen, shape);
}

function floor(pen, project, radius, middle) {
  // A round piece of floor, its lines half a metre apart and at rest when the camera moves.
  const reach = Math.ceil(2 * radius + 0.4) / 2;
  pen.strokeStyle = colours.floor;
  pen.lineWidth = Math.max(1, pen.canvas.width / 420);
  pen.beginPath();
  for (const axis of [0, 1]) {
    for (let line = Math.ceil(2 * (middle[axis] - reach)) / 2; line < middle[axis] + reach; line += 0.5) {
      const half = Math.sqrt(Math.max(0, reach * reach - (line - middle[axis]) ** 2));
      const ends = [middle[1 - axis] - half, middle[1 - axis] + half].map((end) => (axis ? project(end, 0, line) : project(line, 0, end)));
      pen.moveTo(ends[0][0], ends[0][1]);
      pen.lineTo(ends[1][0], ends[1][1]);
    }
  }
  for (let part = 0; part <= 48; part++) {
    const angle = (part * Math.PI) / 24;
    const [x, y] = project(middle[0] + reach * Math.cos(angle), 0, middle[1] + reach * Math.sin(angle));
    if (part) pen.lineTo(x, y);
    else pen.moveTo(x, y);
  }
  pen.stroke();
}

function body(pen, joints, person, project) {
  // The shapes of a person, to be stroked from far to near; the shadow on the floor is drawn at once.
  const offset = person * data.count * 3;
  const world = (joint) => [0, 1, 2].map((axis) => joints[offset + 3 * joint + axis]);
  const look = person ? "two" : "one";
  pen.strokeStyle = colours.ink;
  pen.globalAlpha = 0.13;
  for (const chain of data.chains) {
    const flat = chain.map(world).map(([x, , z]) => project(x, 0, z));
    trace(pen, flat);
    pen.lineWidth = 0.09 * flat[0][2];
    pen.stroke();
  }
  pen.globalAlpha = 1;
  const shapes = data.chains.map((chain) => {
    const points = chain.map((joint) => project(...world(joint)));
    return { look, points, near: points.reduce((sum, point) => sum + point[3], 0) / points.length };
  });
  const { head, neck, left_shoulder: left, right_shoulder: right } = data.joint;
  const [[hx, hy, hz], [nx, ny, nz], [lx, , lz], [rx, , rz]] = [head, neck, left, right].map(world);
  const long = Math.hypot(hx - nx, hy - ny, hz - nz) || 1;
  const middle = [hx + (0.06 * (hx - nx)) / long, hy + (0.06 * (hy - ny)) / long, hz + (0.06 * (hz - nz)) / long];
  const broad = Math.hypot(lx - rx, lz - rz) || 1; // forward is across x up
  const nose = project(middle[0] - (0.2 * (lz - rz)) / broad, middle[1], middle[2] + (0.2 * (lx - rx)) / broad);
  const centre = project(...middle);
  shapes.push({ look, points: [centre, nose], near: centre[3] + 0.01, head: 0.11 * centre[2] });
  return shapes;
}

function stroke(pen, { look, points, head }) {
  // Person 1 is solid; person 2 is hollow: the same line with the ground inside. A rim of ground parts what overlaps.
  const scale = points[0][2];
  const limb = Math.max(0.09 * scale, pen.canvas.width / 75);
  const wide = head ? 0.6 * limb : limb;
  const rim = 0.35 * limb;
  const lines = [[colours.card, rim, rim], [colours[look], 0, 0]];
  if (look === "two") lines.push([colours.card, -0.55 * limb, -0.4 * limb]);
  for (const [colour, grown, ball] of lines) {
    pen.strokeStyle = pen.fillStyle = colour;
    if (!(head && grown < 0)) {
      trace(pen, points);
      pen.lineWidth = wide + grown;
      pen.stroke();
    }
    if (head) {
      pen.beginPath();
      pen.arc(points[0][0], points[0][1], head + ball, 0, 2 * Math.PI);
      pen.fill();
    }
  }
}

// ---- what people do

at("search").addEventListener("input", list);
at("search").addEventListener("keydown", searchKey);
at("sort").append(...Object.keys(ORDERS).map((name) => make("option", "", name)));
at("sort").addEventListener("change", list);
at("play").addEventListener("click", () => play(!playing));
at("scrub").addEventListener("input", () => {
  play(false);
  seek(Number(at("scrub").value));
});
at("previous").addEventListener("click", () => step(-1));
at("next").addEventListener("click", () => step(1));
at("left").addEventListener("click", () => turn(-Math.PI / 8, 0));
at("right").addEventListener("click", () => turn(Math.PI / 8, 0));
at("reset").addEventListener("click", () => {
  camera = { ...START };
  ask();
});
at("follow").addEventListener("click", () => {
  follows = !follows;
  at("follow").setAttribute("aria-pressed", follows);
  ask();
});
at("show").addEventListener("click", () => {
  const right = document.querySelector("#candidates > .right");
  right.scrollIntoView({ block: "start", behavior: calm.matches ? "auto" : "smooth" });
  right.focus({ preventScroll: true });
});

at("candidates").addEventListener("pointerdown", (event) => {
  if (event.target.tagName === "CANVAS") event.target.setPointerCapture(event.pointerId);
});
at("candidates").addEventListener("pointermove", (event) => {
  if (event.target.tagName === "CANVAS" && event.target.hasPointerCapture(event.pointerId)) turn(event.movementX / 120, event.movementY / 160);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tag = event.target.tagName;
  const writing = tag === "SELECT" || (tag === "INPUT" && event.target.type === "search");
  if (event.key === "Escape" && !single) {
    if (writing) event.target.blur();
    else location.hash = "";
  }
  if (writing || single && event.key !== " ") return;
  const inList = at("list").contains(event.target);
  const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: inList ? -1 : 0, ArrowDown: inList ? 1 : 0 }[event.key];
  if (event.key === " " && tag !== "BUTTON" && cards.length) play(!playing);
  else if (by && tag !== "INPUT") step(by);
  else if (event.key === "/") at("search").focus();
  else return;
  event.preventDefault();
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const THEME = "motret-theme";

function theme() {
  const chosen = document.documentElement.dataset.theme;
  at("theme").textContent = (chosen ? chosen === "dark" : dark.matches) ? "Light" : "Dark";
  at("theme").setAttribute("aria-label", `${at("theme").textContent} colours`);
  readColours();
}

function remembered(value) {
  // A browser may refuse a file its storage: then the choice lasts as long as the page.
  try {
    if (value) localStorage.setItem(THEME, value);
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

at("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = at("theme").textContent.toLowerCase();
  remembered(document.documentElement.dataset.theme);
  theme();
});
dark.addEventListener("change", theme);

const chosen = remembered();
if (chosen) document.documentElement.dataset.theme = chosen;
theme();
play(!calm.matches);
if (single) show(0);
else list();
addEventListener("hashchange", route);
route();
