'use strict';
// Draws what the server says of an image (PUT scenes/VISITOR) and of a position (GET .../look).

const FIELD = 'local field';
const MEAN = 'mean of heads';
const COLOURS = ['#1f77ff', '#00a35c', '#c2410c', '#8b3fd9', '#b58900', '#0891b2', '#d6336c', '#5c7cfa'];
const HEAT = [255, 90, 0];  // as --heat
const SVG = 'http://www.w3.org/2000/svg';

const $ = (id) => document.getElementById(id);
const visitor = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) =>
  byte.toString(16).padStart(2, '0')).join('');
const mine = `scenes/${visitor}`;

let settings, scene, point, looks = [], panels = [], asked = 0, what = MEAN;
let opening = Promise.resolve();

class Refused extends Error {}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Refused('The server does not answer: has it been stopped?');
  }
  if (!answer.ok) throw new Refused(await answer.text());
  return answer.json();
}

function say(text, isError = false) {
  if ($('said').textContent !== text) $('said').textContent = text;  // which is read aloud
  $('said').classList.toggle('error', isError);
}

async function attempt(action) {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    say(error.message, true);
  }
}

// ---- what is chosen

function open(source) {
  // One after the other, so that what is shown is what the server has.
  opening = opening.then(() => attempt(async () => {
    const isFile = source instanceof File;
    if (isFile && source.size > settings.max_bytes) {
      throw new Refused(`the file has ${source.size} bytes; at most ${settings.max_bytes} are taken`);
    }
    $('models').setAttribute('aria-busy', 'true');
    say('The models look at the image …');
    try {
      const opened = await ask(isFile ? mine : `${mine}?image=${source}`,
        { method: 'PUT', body: isFile ? source : undefined });
      scene = opened;
      showScene();
      await look(scene.point);
    } finally {
      $('models').setAttribute('aria-busy', 'false');
    }
  }));
}

async function look(position) {
  if (!scene) return;
  point = position.map((value, axis) => Math.min(Math.max(Math.floor(value), 0), scene.size[axis] - 1));
  [$('x').value, $('y').value] = point;
  panels.forEach(placeMark);
  const number = ++asked;
  const [x, y] = point;
  const found = await ask(`${mine}/look?x=${x}&y=${y}&layer=${encodeURIComponent($('layer').value)}`);
  if (number !== asked) return;  // another click has come after it
  looks = found;
  listWhat();
  panels.forEach(showLook);
  explain();
}

function listWhat() {
  // What one model has and another lacks can be chosen all the same.
  const names = [...new Set(looks.flatMap((of) => [...of.heats.map((heat) => heat.name), ...(of.field ? [FIELD] : [])]))];
  const last = [FIELD, 'mean omega'];  // the mean and the heads before them
  names.sort((a, b) => last.indexOf(a) - last.indexOf(b));
  if (!names.includes(what)) what = names.includes(MEAN) ? MEAN : names[0];
  $('what').replaceChildren(...names.map((name) => new Option(label(name), name, false, name === what)));
  return names;
}

function label(name) {
  return { [MEAN]: 'context: mean of heads', [FIELD]: FIELD, 'mean omega': 'omega' }[name] ?? name;
}

function choose(name) {
  what = name;
  $('what').value = name;
  panels.forEach(showLook);
  explain();
}

function explain() {
  const layer = $('layer').value;
  const meaning = what === FIELD
    ? `The boxes are what the convolution of ${layer} reads for the marked position.`
    : what === 'mean omega'
      ? `The more colour, the more context each position of ${layer} takes beside its local field.`
      : `The more colour, the more the marked position takes from there in ${layer} (${label(what)}).`;
  say(`${meaning} Click on the image, or move with the arrow keys, to look from another position.`);
}

// ---- what is drawn

function build() {
  const single = settings.titles.length === 1;
  settings.titles.forEach((title, model) => {
    if (single) addPanel(model, title, { findings: true, looks: false });
    addPanel(model, title, { findings: !single, looks: true });
  });
}

function addPanel(model, title, shows) {
  const element = $('panel').content.firstElementChild.cloneNode(true);
  const part = (name) => element.querySelector(`.${name}`);
  const panel = { model, title, shows, element, part };
  const view = part('view');
  element.id = `${shows.looks ? 'look' : 'picture'}-${model}`;
  view.classList.toggle('looks', shows.looks);
  if (shows.looks) {
    part('thumbs').setAttribute('role', 'group');
    part('thumbs').setAttribute('aria-label', `Maps of ${title}`);
  }
  if (shows.looks && shows.findings) {
    part('title').textContent = title;
  } else {
    part('title').textContent = shows.looks ? 'where it looks' : 'what it finds';
    if (!shows.looks) part('thumbs').append(Object.assign(document.createElement('p'), { textContent: title }));
  }
  view.addEventListener('click', (event) => {
    const box = view.getBoundingClientRect();
    attempt(() => look([
      (event.clientX - box.left) / box.width * scene.size[0],
      (event.clientY - box.top) / box.height * scene.size[1],
    ]));
  });
  view.addEventListener('keydown', (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step || !looks.length) return;
    event.preventDefault();
    const [left, top, right, bottom] = looks[model].cell;  // a step is a position of the map
    attempt(() => look([
      point[0] + step[0] * Math.max(1, right - left), point[1] + step[1] * Math.max(1, bottom - top),
    ]));
  });
  panels.push(panel);
  $('models').append(element);
}

function showScene() {
  const [width, height] = scene.size;
  document.body.style.setProperty('--ratio', width / height);
  scene.address = `${mine}/image?${++asked}`;
  for (const panel of panels) {
    panel.part('picture').src = scene.address;
    panel.part('over').setAttribute('viewBox', `0 0 ${width} ${height}`);
    showFindings(panel);
  }
}

function showFindings(panel) {
  const shown = scene && panel.shows.findings && $('detections').checked
    ? scene.findings[panel.model].filter((found) => found.score >= $('score').value) : [];
  const names = [...new Set(scene ? scene.findings.flat().map((found) => found.name).sort() : [])];
  const shapes = [], labels = [];
  for (const found of [...shown].reverse()) {  // the most certain above the others
    const colour = COLOURS[names.indexOf(found.name) % COLOURS.length];
    if (found.outline) shapes.push(draw('path', { d: found.outline, fill: colour, stroke: colour }));
    if (found.box) shapes.push(draw('rect', { ...box(found.box), stroke: colour }));
    const text = document.createElement('span');
    text.textContent = `${found.name} ${found.score.toFixed(2)}`;
    text.style.background = colour;
    const [left, top] = found.box ?? [0, (shown.indexOf(found) + 2) / 20 * scene.size[1]];
    place(text, left, Math.max(top, 0));
    labels.push(text);
  }
  panel.part('found').replaceChildren(...shapes);
  panel.part('labels').replaceChildren(...labels);
  const found = panel.shows.findings ? ` It finds ${shown.map(({ name }) => name).join(', ') || 'nothing'}.` : '';
  panel.part('view').setAttribute('aria-label', `${panel.shows.looks ? 'Where it looks' : 'What it finds'}: `
    + `${panel.title}.${found} Arrow keys move the position.`);
}

function showLook(panel) {
  if (!panel.shows.looks || !looks.length) return;
  const of = looks[panel.model];
  const heat = of.heats.find((candidate) => candidate.name === what);
  const showsField = !heat && of.field;
  const canvas = panel.part('heat');
  canvas.hidden = !heat;
  if (heat) {
    fill(canvas, heat);
    placeBox(canvas, of.extent);
  }
  for (const cell of panel.element.querySelectorAll('.cell')) {
    for (const [name, value] of Object.entries(box(of.cell))) cell.setAttribute(name, value);
  }
  panel.part('fields').replaceChildren(...(showsField ? of.field : []).flatMap((corners) => [
    draw('rect', { ...box(corners), class: 'rim' }), draw('rect', box(corners)),
  ]));
  const legend = panel.part('legend');
  legend.replaceChildren();
  if (heat) {
    legend.append(`${label(heat.name)}: ${number(heat.low)} `, document.createElement('i'),
      ` ${number(heat.high)}${heat.name === 'mean omega' ? '' : ', the largest weight'}`);
  } else if (showsField) {
    legend.append(what === FIELD ? 'local field' : `no ${label(what)} here: local field`);
  } else {
    legend.append(`no ${label(what)} here`);
  }
  showThumbs(panel, of);
}

function showThumbs(panel, of) {
  const thumbs = panel.part('thumbs');
  for (const name of Array.from($('what').options, (option) => option.value)) {
    const heat = of.heats.find((candidate) => candidate.name === name);
    let thumb = Array.from(thumbs.children).find((child) => child.dataset.name === name);
    if (!heat && !(name === FIELD && of.field)) {
      thumb?.remove();
      continue;
    }
    if (!thumb) {
      thumb = document.createElement('button');
      thumb.className = 'thumb';
      thumb.dataset.name = name;
      thumb.append(new Image(), name === FIELD ? draw('svg', { preserveAspectRatio: 'none' }) : canvasOf(),
        document.createElement('span'));
      thumb.firstChild.alt = '';
      thumb.lastChild.textContent = { [MEAN]: 'mean', [FIELD]: 'field', 'mean omega': 'omega' }[name]
        ?? name.replace('head ', '').replace('added in', '+');
      thumb.addEventListener('click', () => choose(name));
    }
    thumbs.append(thumb);
    if (thumb.firstChild.getAttribute('src') !== scene.address) thumb.firstChild.src = scene.address;
    if (heat) {
      fill(thumb.children[1], heat);
      placeBox(thumb.children[1], of.extent);
    } else {
      thumb.children[1].setAttribute('viewBox', `0 0 ${scene.size.join(' ')}`);
      thumb.children[1].replaceChildren(...of.field.map((corners) => draw('rect', box(corners))));
    }
    thumb.setAttribute('aria-pressed', name === what);
    thumb.setAttribute('aria-label', heat ? `${label(name)}, up to ${number(heat.high)}` : label(name));
    thumb.title = thumb.getAttribute('aria-label');
  }
  const known = new Set(Array.from($('what').options, (option) => option.value));
  thumbs.style.setProperty('--count', known.size);
  for (const child of Array.from(thumbs.children)) if (!known.has(child.dataset.name)) child.remove();
}

function placeMark(panel) {
  place(panel.part('mark'), point[0] + 0.5, point[1] + 0.5);
}

// ---- small things

function canvasOf() {
  const canvas = document.createElement('canvas');
  canvas.className = 'heat';
  return canvas;
}

function fill(canvas, heat) {
  // A pixel a position, opaque where the weight is largest; the browser enlarges it smoothly.
  const [rows, columns] = heat.shape;
  [canvas.width, canvas.height] = [columns, rows];
  const pixels = new ImageData(columns, rows);
  const levels = atob(heat.values);
  for (let index = 0; index < levels.length; index++) {
    pixels.data.set([...HEAT, levels.charCodeAt(index)], 4 * index);
  }
  canvas.getContext('2d').putImageData(pixels, 0, 0);
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function box([left, top, right, bottom]) {
  return { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0) };
}

function place(element, x, y) {
  element.style.left = `${100 * x / scene.size[0]}%`;
  element.style.top = `${100 * y / scene.size[1]}%`;
}

function placeBox(element, [left, top, right, bottom]) {
  place(element, left, top);
  element.style.width = `${100 * (right - left) / scene.size[0]}%`;
  element.style.height = `${100 * (bottom - top) / scene.size[1]}%`;
}

function number(value) {
  return value === 0 ? '0' : value.toPrecision(3);
}

// ---- start

$('controls').addEventListener('submit', (event) => event.preventDefault());
$('image').addEventListener('change', () => open($('image').value));
$('upload').addEventListener('change', () => {
  const [file] = $('upload').files;
  if (file) open(file);
  $('upload').value = '';  // the same file may be chosen again
});
$('layer').addEventListener('change', () => attempt(() => look(point)));
$('what').addEventListener('change', () => choose($('what').value));
for (const axis of ['x', 'y']) {
  $(axis).addEventListener('change', () => attempt(() => look([Number($('x').value), Number($('y').value)])));
}
$('detections').addEventListener('change', () => panels.forEach(showFindings));
$('score').addEventListener('input', () => {
  $('threshold').textContent = Number($('score').value).toFixed(2);
  panels.forEach(showFindings);
});
addEventListener('pagehide', () => fetch(mine, { method: 'DELETE', keepalive: true }));
addEventListener('pageshow', (event) => { if (event.persisted) location.reload(); });

attempt(async () => {
  settings = await ask('settings');
  $('image').append(...settings.images.map((name, index) => new Option(name, index)));
  $('of-image').hidden = !settings.images.length;
  $('layer').append(...settings.layers.map((name) => new Option(name, name, false, name === settings.layer)));
  $('score').min = settings.min_score;
  $('score').value = settings.score;
  $('threshold').textContent = settings.score.toFixed(2);
  build();
  if (settings.images.length) open(0);
  else say('Upload an image to look at. It stays on the machine that serves this page.');
});
