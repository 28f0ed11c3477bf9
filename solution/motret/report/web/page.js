// Lists the queries, opens one, and animates its candidates: stick figures on a round floor, all at
// the same time and seen by the same camera.

const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const queries = data.queries;
const single = queries.length === 1;
const hasTruth = queries.some((query) => query.rank !== null);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");
const maxScore = Math.max(...queries.flatMap((query) => query.candidates.map((candidate) => candidate.score)), 1e-9);

function createElement(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// ---- the list of queries

const collator = new Intl.Collator("en", { numeric: true });
const compareIds = (a, b) => collator.compare(a.id, b.id);
const compareCaptions = (a, b) => collator.compare(a.captions[0], b.captions[0]);
const rankOf = (query) => query.rank ?? query.gallery + 1;
const topScore = (query) => query.candidates[0].score;
const marginOf = ({ candidates: [first, second] }) => (second ? first.score - second.score : Infinity);
const ORDERS = hasTruth
  ? {
      "hardest first": { compare: (a, b) => rankOf(b) - rankOf(a) || compareIds(a, b) },
      "easiest first": { compare: (a, b) => rankOf(a) - rankOf(b) || compareIds(a, b) },
      "by id": { compare: compareIds },
      "by caption": { compare: compareCaptions },
    }
  : {
      "by id": { compare: compareIds },
      "by caption": { compare: compareCaptions },
      "lowest top score": { compare: (a, b) => topScore(a) - topScore(b) },
      "highest top score": { compare: (a, b) => topScore(b) - topScore(a) },
    };
ORDERS["smallest margin first"] = {
  compare: (a, b) => marginOf(a) - marginOf(b) || compareIds(a, b),
  value: (query) => (query.candidates.length > 1 ? `margin ${marginOf(query).toFixed(2)}` : "one candidate"),
  help: "Margin: the score of the first candidate minus that of the second.",
};
if (queries.some((query) => query.disagreement !== null)) {
  ORDERS["most disagreement first"] = {
    compare: (a, b) => b.disagreement - a.disagreement || compareIds(a, b),
    value: (query) => `disagreement ${query.disagreement.toFixed(2)}`,
    help:
      "Disagreement: how differently the members of the ensemble rank the candidates. It is 1 minus Spearman's rank " +
      "correlation, averaged over all pairs of members. 0: the same order; 1: unrelated orders.",
  };
}
const searchTexts = queries.map((query) => [query.id, ...query.captions].join("\n").toLowerCase());
let listed = []; // indices of the queries in the list, in its order
let current = null; // index of the open query
let keepFocus = false; // whether the focus stays in the list when the next query opens

function rankText(query) {
  return query.rank === null ? `best of ${query.gallery}: ${query.candidates[0].motion}` : `rank ${query.rank} of ${query.gallery}`;
}

function listItem(index) {
  const query = queries[index];
  const link = createElement("a");
  link.href = `#query-${index}`;
  const mark = createElement("span", query.rank === null ? "" : `mark ${query.rank === 1 ? "first" : query.rank <= 10 ? "near" : ""}`);
  mark.setAttribute("aria-hidden", "true");
  link.append(mark, createElement("span", "text", query.captions.join(" / ")), createElement("span", "details"));
  const item = createElement("li");
  item.append(link);
  return item;
}

const listItems = single ? [] : queries.map((_, index) => listItem(index));

function updateList() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const { compare, value, help } = ORDERS[$("sort").value];
  listed = queries.map((_, index) => index).filter((index) => words.every((word) => searchTexts[index].includes(word)));
  listed.sort((a, b) => compare(queries[a], queries[b]));
  for (const index of listed) {
    const query = queries[index];
    linkOf(index).lastChild.textContent = [query.id, rankText(query), ...(value ? [value(query)] : [])].join(" · ");
  }
  $("sort-help").textContent = help ?? "";
  $("sort-help").hidden = !help;
  $("queries").replaceChildren(...listed.map((index) => listItems[index]));
  $("count").textContent = words.length ? `${listed.length} of ${queries.length} queries` : `${queries.length} queries`;
  if (current !== null) updatePosition();
}

function linkOf(index) {
  return listItems[index].firstChild;
}

// ---- one query

function announce(text) {
  $("announcement").textContent = text;
}

function updatePosition() {
  const position = listed.indexOf(current);
  $("position").textContent = position < 0 ? "not in the list" : `${position + 1} of ${listed.length}`;
  $("previous").disabled = position === 0 || !listed.length;
  $("next").disabled = position === listed.length - 1 || !listed.length;
}

function openNeighbour(offset) {
  const position = current === null ? -1 : listed.indexOf(current);
  const index = listed[position < 0 ? 0 : position + offset];
  if (index === undefined || index === current) return;
  keepFocus = $("list").contains(document.activeElement);
  if (keepFocus && document.activeElement !== $("search")) linkOf(index).focus();
  location.hash = `query-${index}`;
}

function onSearchKey(event) {
  // Enter opens the first result; the arrows open one after the other, and typing can go on.
  const offset = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  if (event.isComposing || !listed.length || (event.key !== "Enter" && !offset)) return;
  event.preventDefault();
  if (offset) openNeighbour(offset);
  else if (current === listed[0]) $("caption").focus();
  else {
    keepFocus = false;
    location.hash = `query-${listed[0]}`;
  }
}

function createCard(candidate) {
  const motion = data.motions[candidate.motionIndex];
  const item = createElement("li", candidate.match ? "match" : "");
  item.tabIndex = -1;
  const figure = createElement("figure");
  const canvas = createElement("canvas");
  canvas.setAttribute("role", "img");
  const persons = motion.persons === 2 ? "two persons" : "one person";
  const match = candidate.match ? ", matching motion" : "";
  canvas.setAttribute("aria-label", `Rank ${candidate.rank}${match}: ${candidate.motion}, ${persons} as stick figures, ${motion.seconds.toFixed(1)} seconds`);
  const caption = createElement("figcaption");
  caption.append(cardTitle(candidate, motion), scoreBar(candidate.score));
  if (candidate.captions.length) {
    const captions = createElement("ul", "motion-captions");
    captions.setAttribute("aria-label", "Captions of this motion");
    captions.append(...candidate.captions.map((text) => createElement("li", "", text)));
    caption.append(captions);
  }
  figure.append(canvas, caption);
  item.append(figure);
  return { item, canvas, motion, motionIndex: candidate.motionIndex, visible: false, coordinates: null };
}

function cardTitle(candidate, motion) {
  const title = createElement("div", "card-title");
  title.append(createElement("span", "rank", `${candidate.rank}.`), createElement("span", "name", candidate.motion));
  if (candidate.match) title.append(createElement("span", "badge", "✓ match"));
  const packed = motion.frames / data.fps;
  const total = `${motion.seconds.toFixed(1)} s`;
  title.append(createElement("span", "duration", packed < motion.seconds - 0.2 ? `${packed.toFixed(0)} of ${total}` : total));
  return title;
}

function scoreBar(score) {
  const bar = createElement("span", "bar");
  const filled = createElement("i");
  filled.style.width = `${Math.max(0, Math.min(1, score / maxScore)) * 100}%`;
  bar.append(filled);
  bar.setAttribute("aria-hidden", "true");
  const value = createElement("span");
  value.append(createElement("span", "visually-hidden", "score "), score.toFixed(2));
  const row = createElement("div", "score");
  row.append(bar, value);
  return row;
}

function showQuery(index) {
  const query = queries[index];
  if (current !== null && !single) linkOf(current).removeAttribute("aria-current");
  current = index;
  document.body.dataset.view = "query";
  $("overview").hidden = !single;
  $("query").hidden = false;
  $("caption").textContent = query.captions[0];
  $("captions").hidden = query.captions.length < 2;
  $("captions").replaceChildren(...query.captions.slice(1).map((text) => createElement("li", "", text)));
  $("show-match").hidden = query.rank === null;
  const result = query.rank === null ? `${query.gallery} motions ranked` : `matching motion ranked ${query.rank} of ${query.gallery}`;
  $("result").textContent = single ? result : `${query.id}: ${result}`;
  showCards(query.candidates.map(createCard));
  if (single) return;
  updatePosition();
  linkOf(index).setAttribute("aria-current", "true");
  linkOf(index).scrollIntoView({ block: "nearest" });
  scrollTo(0, 0);
  if (!keepFocus) $("caption").focus({ preventScroll: true });
  keepFocus = false;
  announce(`Query ${$("position").textContent}: ${query.captions[0]}; ${result}`);
}

function showCards(newCards) {
  visibility.disconnect();
  resizing.disconnect();
  cards = newCards;
  $("candidates").replaceChildren(...cards.map((card) => card.item));
  for (const card of cards) {
    visibility.observe(card.canvas);
    resizing.observe(card.canvas);
    unpack(card.motionIndex).then((coordinates) => {
      card.coordinates = coordinates;
      requestDraw();
    });
  }
  $("legend").hidden = !cards.some((card) => card.motion.persons === 2);
  for (const name of ["radius", "reach"]) {
    const values = cards.map((card) => card.motion[name]).sort((a, b) => a - b);
    typical[name] = Math.min(2.5, Math.max(1, values[values.length >> 1]));
  }
  duration = Math.max(...cards.map((card) => (card.motion.frames - 1) / data.fps), 0.1);
  $("scrub").max = duration.toFixed(1);
  camera = { ...START };
  seek(0);
  play(playing);
}

function showOverview() {
  if (current !== null) linkOf(current).removeAttribute("aria-current");
  current = null;
  cards = [];
  document.body.dataset.view = "overview";
  $("overview").hidden = false;
  $("query").hidden = true;
}

function route() {
  const match = /^#query-(\d+)$/.exec(location.hash);
  if (single) return;
  if (match && Number(match[1]) < queries.length) showQuery(Number(match[1]));
  else if (!location.hash) showOverview();
}

// ---- motions

const unpacked = new Map();

function unpack(index) {
  // The inverse of pose_codec.pack_motion: base64, zlib, int16 differences in two byte planes, running sum.
  if (!unpacked.has(index)) unpacked.set(index, inflate(data.motions[index]));
  return unpacked.get(index);
}

async function inflate(motion) {
  const text = atob(motion.data);
  const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const count = planes.length / 2;
  const width = count / motion.frames;
  const coordinates = new Int16Array(count);
  for (let i = 0; i < count; i++) {
    const previous = i < width ? 0 : coordinates[i - width];
    coordinates[i] = previous + (planes[i] | (planes[count + i] << 8));
  }
  return coordinates;
}

// ---- the player: one clock and one camera for all candidates

const START = { yaw: -0.35, pitch: 0.26 };
let cards = [];
let camera = { ...START };
let following = false; // whether the camera follows the persons
let typical = { radius: 1.5, reach: 1.5 }; // metres around the centre that most candidates need, with a fixed or following camera
let duration = 1;
let time = 0;
let playing = false;
let drawRequested = false;
let lastFrame = 0;

function requestDraw() {
  if (!drawRequested) requestAnimationFrame(onFrame);
  drawRequested = true;
}

function onFrame(now) {
  drawRequested = false;
  if (playing && cards.length) {
    time += Math.min(0.1, Math.max(0, now - lastFrame) / 1000) * Number($("speed").value);
    if (time > duration + 0.4) time = 0; // the last pose is held for a moment
    updateTime();
    requestDraw();
  }
  lastFrame = now;
  for (const card of cards) if (card.visible && card.coordinates) draw(card);
}

function updateTime() {
  const seconds = Math.min(time, duration);
  $("scrub").value = seconds;
  $("time").textContent = `${seconds.toFixed(1)} of ${duration.toFixed(1)} s`;
}

function seek(seconds) {
  time = seconds;
  updateTime();
  requestDraw();
}

function play(on) {
  playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  if (on && time >= duration) time = 0;
  lastFrame = performance.now();
  requestDraw();
}

function turnCamera(yaw, pitch) {
  camera.yaw += yaw;
  camera.pitch = Math.min(1.5, Math.max(0.02, camera.pitch + pitch));
  requestDraw();
}

const visibility = new IntersectionObserver((changes) => {
  for (const change of changes) {
    const card = cards.find(({ canvas }) => canvas === change.target);
    if (card) card.visible = change.isIntersecting;
  }
  requestDraw();
}, { rootMargin: "50px" });

const resizing = new ResizeObserver((changes) => {
  for (const { target, contentRect } of changes) {
    const density = Math.min(devicePixelRatio || 1, 2);
    target.width = Math.round(contentRect.width * density);
    target.height = Math.round(contentRect.height * density);
  }
  requestDraw();
});

const COLOURS = ["person1", "person2", "card", "floor", "ink"];
let colors = {};
function readColours() {
  // a custom property holds both color schemes; the computed color of an element is the one in use
  const probe = createElement("span");
  document.body.append(probe);
  for (const name of COLOURS) {
    probe.style.color = `var(--${name})`;
    colors[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  requestDraw();
}

// ---- drawing

function currentPose(card) {
  // Joints of all persons at the current time, [x y z ...] in metres: interpolated between frames, the last one held.
  const width = card.coordinates.length / card.motion.frames;
  const position = Math.min(time * data.fps, card.motion.frames - 1);
  const frame = Math.floor(position);
  const fraction = position - frame;
  const start = frame * width;
  const end = Math.min(frame + 1, card.motion.frames - 1) * width;
  const joints = new Float32Array(width);
  for (let i = 0; i < width; i++) {
    joints[i] = ((1 - fraction) * card.coordinates[start + i] + fraction * card.coordinates[end + i]) * data.metresPerStep;
  }
  return joints;
}

function pelvisCentre(joints) {
  // The middle [x, z] of the persons' pelvises.
  const sum = [0, 0];
  const width = data.nJoints * 3;
  for (let i = 0; i < joints.length; i += width) {
    sum[0] += joints[i];
    sum[1] += joints[i + 2];
  }
  return sum.map((value) => (value * width) / joints.length);
}

function makeProjection(canvas, radius, [centreX, centreZ]) {
  // Metres to [x, y, pixels per metre, depth]; depth grows towards the camera, which circles the centre at hip height.
  const distance = 2.5 * radius + 3;
  const focalWidth = ((canvas.width / 2) * (distance - 0.4 * radius)) / (radius + 0.1);
  const focalHeight = ((canvas.height / 2) * (distance - 0.4 * radius)) / (1 + 0.2 * radius);
  const focal = Math.min(focalWidth, focalHeight);
  const [sinYaw, cosYaw, sinPitch, cosPitch] = [Math.sin(camera.yaw), Math.cos(camera.yaw), Math.sin(camera.pitch), Math.cos(camera.pitch)];
  return (x, y, z) => {
    const across = cosYaw * (x - centreX) + sinYaw * (z - centreZ);
    const towards = cosYaw * (z - centreZ) - sinYaw * (x - centreX);
    const up = (y - 0.9) * cosPitch - towards * sinPitch;
    const depth = (y - 0.9) * sinPitch + towards * cosPitch;
    const scale = focal / Math.max(distance - depth, 0.3);
    return [canvas.width / 2 + across * scale, canvas.height / 2 - up * scale, scale, depth];
  };
}

function tracePath(context, points) {
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
}

function draw(card) {
  const { canvas, motion } = card;
  const context = canvas.getContext("2d");
  const joints = currentPose(card);
  const extent = following ? "reach" : "radius";
  const radius = Math.max(typical[extent], motion[extent]);
  const centre = following ? pelvisCentre(joints) : [0, 0];
  const project = makeProjection(canvas, radius, centre);
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.lineCap = context.lineJoin = "round";
  drawFloor(context, project, radius, centre);
  const shapes = [];
  for (let person = 0; person < motion.persons; person++) {
    drawShadow(context, joints, person, project);
    shapes.push(...bodyShapes(joints, person, project));
  }
  shapes.sort((a, b) => a.depth - b.depth);
  for (const shape of shapes) drawShape(context, shape);
}

function drawFloor(context, project, radius, centre) {
  // A disc with a grid of half a metre, which stays in place when the camera moves.
  const floorRadius = Math.ceil(2 * radius + 0.4) / 2;
  context.strokeStyle = colors.floor;
  context.lineWidth = Math.max(1, context.canvas.width / 420);
  context.beginPath();
  for (const axis of [0, 1]) {
    for (let line = Math.ceil(2 * (centre[axis] - floorRadius)) / 2; line < centre[axis] + floorRadius; line += 0.5) {
      const half = Math.sqrt(Math.max(0, floorRadius * floorRadius - (line - centre[axis]) ** 2));
      const ends = [centre[1 - axis] - half, centre[1 - axis] + half].map((end) => (axis ? project(end, 0, line) : project(line, 0, end)));
      context.moveTo(ends[0][0], ends[0][1]);
      context.lineTo(ends[1][0], ends[1][1]);
    }
  }
  for (let step = 0; step <= 48; step++) {
    const angle = (step * Math.PI) / 24;
    const [x, y] = project(centre[0] + floorRadius * Math.cos(angle), 0, centre[1] + floorRadius * Math.sin(angle));
    if (step) context.lineTo(x, y);
    else context.moveTo(x, y);
  }
  context.stroke();
}

function jointPosition(joints, person, joint) {
  const start = (person * data.nJoints + joint) * 3;
  return [joints[start], joints[start + 1], joints[start + 2]];
}

function drawShadow(context, joints, person, project) {
  context.strokeStyle = colors.ink;
  context.globalAlpha = 0.13;
  for (const chain of data.chains) {
    const points = chain.map((joint) => jointPosition(joints, person, joint)).map(([x, , z]) => project(x, 0, z));
    tracePath(context, points);
    context.lineWidth = 0.09 * points[0][2];
    context.stroke();
  }
  context.globalAlpha = 1;
}

function bodyShapes(joints, person, project) {
  // The limbs and the head of a person, to be drawn from far to near.
  const shapes = data.chains.map((chain) => {
    const points = chain.map((joint) => project(...jointPosition(joints, person, joint)));
    return { person, points, depth: points.reduce((sum, point) => sum + point[3], 0) / points.length };
  });
  const { head, neck, left_shoulder: left, right_shoulder: right } = data.joints;
  const [[headX, headY, headZ], [neckX, neckY, neckZ], [leftX, , leftZ], [rightX, , rightZ]] = [head, neck, left, right].map((joint) => jointPosition(joints, person, joint));
  const length = Math.hypot(headX - neckX, headY - neckY, headZ - neckZ) || 1;
  const centre = [headX + (0.06 * (headX - neckX)) / length, headY + (0.06 * (headY - neckY)) / length, headZ + (0.06 * (headZ - neckZ)) / length];
  const shoulders = Math.hypot(leftX - rightX, leftZ - rightZ) || 1; // forward = (left - right) x up
  const nose = project(centre[0] - (0.2 * (leftZ - rightZ)) / shoulders, centre[1], centre[2] + (0.2 * (leftX - rightX)) / shoulders);
  const headCentre = project(...centre);
  shapes.push({ person, points: [headCentre, nose], depth: headCentre[3] + 0.01, headRadius: 0.11 * headCentre[2] });
  return shapes;
}

function drawShape(context, { person, points, headRadius }) {
  // Person 1 is solid; person 2 is hollow: the same line with background inside. A rim of background separates what overlaps.
  const scale = points[0][2];
  const limb = Math.max(0.09 * scale, context.canvas.width / 75);
  const width = headRadius ? 0.6 * limb : limb;
  const rim = 0.35 * limb;
  const layers = [
    { color: colors.card, widen: rim, grow: rim },
    { color: colors[`person${person + 1}`], widen: 0, grow: 0 },
  ];
  if (person === 1) layers.push({ color: colors.card, widen: -0.55 * limb, grow: -0.4 * limb });
  for (const { color, widen, grow } of layers) {
    context.strokeStyle = context.fillStyle = color;
    if (!(headRadius && widen < 0)) {
      tracePath(context, points);
      context.lineWidth = width + widen;
      context.stroke();
    }
    if (headRadius) {
      context.beginPath();
      context.arc(points[0][0], points[0][1], headRadius + grow, 0, 2 * Math.PI);
      context.fill();
    }
  }
}

// ---- events

$("search").addEventListener("input", updateList);
$("search").addEventListener("keydown", onSearchKey);
$("sort").append(...Object.keys(ORDERS).map((name) => createElement("option", "", name)));
$("sort").addEventListener("change", updateList);
$("play").addEventListener("click", () => play(!playing));
$("scrub").addEventListener("input", () => {
  play(false);
  seek(Number($("scrub").value));
});
$("previous").addEventListener("click", () => openNeighbour(-1));
$("next").addEventListener("click", () => openNeighbour(1));
$("turn-left").addEventListener("click", () => turnCamera(-Math.PI / 8, 0));
$("turn-right").addEventListener("click", () => turnCamera(Math.PI / 8, 0));
$("reset").addEventListener("click", () => {
  camera = { ...START };
  requestDraw();
});
$("follow").addEventListener("click", () => {
  following = !following;
  $("follow").setAttribute("aria-pressed", following);
  requestDraw();
});
$("show-match").addEventListener("click", () => {
  const match = document.querySelector("#candidates > .match");
  match.scrollIntoView({ block: "start", behavior: reducedMotion.matches ? "auto" : "smooth" });
  match.focus({ preventScroll: true });
});

$("candidates").addEventListener("pointerdown", (event) => {
  if (event.target.tagName === "CANVAS") event.target.setPointerCapture(event.pointerId);
});
$("candidates").addEventListener("pointermove", (event) => {
  const dragging = event.target.tagName === "CANVAS" && event.target.hasPointerCapture(event.pointerId);
  if (dragging) turnCamera(event.movementX / 120, event.movementY / 160);
});

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const tag = event.target.tagName;
  const typing = tag === "SELECT" || (tag === "INPUT" && event.target.type === "search");
  if (event.key === "Escape" && !single) {
    if (typing) event.target.blur();
    else location.hash = "";
  }
  if (typing || (single && event.key !== " ")) return;
  const inList = $("list").contains(event.target);
  const offset = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: inList ? -1 : 0, ArrowDown: inList ? 1 : 0 }[event.key];
  if (event.key === " " && tag !== "BUTTON" && cards.length) play(!playing);
  else if (offset && tag !== "INPUT") openNeighbour(offset);
  else if (event.key === "/") $("search").focus();
  else return;
  event.preventDefault();
});

const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const THEME_KEY = "motret-theme";

function updateTheme() {
  const theme = document.documentElement.dataset.theme;
  $("theme").textContent = (theme ? theme === "dark" : prefersDark.matches) ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", `${$("theme").textContent} colors`);
  readColours();
}

function storedTheme(theme) {
  // A browser may refuse storage to a file: then the choice lasts as long as the page.
  try {
    if (theme) localStorage.setItem(THEME_KEY, theme);
    return localStorage.getItem(THEME_KEY);
  } catch {
    return null;
  }
}

$("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = $("theme").textContent.toLowerCase();
  storedTheme(document.documentElement.dataset.theme);
  updateTheme();
});
prefersDark.addEventListener("change", updateTheme);

const theme = storedTheme();
if (theme) document.documentElement.dataset.theme = theme;
updateTheme();
play(!reducedMotion.matches);
if (single) showQuery(0);
else updateList();
addEventListener("hashchange", route);
route();
