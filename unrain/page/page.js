// One upload at a time: send it, ask how far it is, fetch both pictures, and let the server forget it.

const $ = id => document.getElementById(id);
const chosen = ['model', 'backend', 'precision', 'longest', 'deadline'];
let limits = { max_upload: Infinity, max_frames: 0 };
let file = null;     // what "Derain again" sends once more
let job = null;      // what the server works on for this page
let shown = [];      // object URLs to be given back

const say = text => { $('status').textContent = text; };

function fail(text) {
  say('');
  $('error').textContent = text;
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error('The server does not answer any more. Is `unrain demo` still running?');
  }
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  throw new Error(error);
}

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));
const megabytes = bytes => `${Math.floor(bytes / 1e6)} MB`;
const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

async function derain() {
  const mine = file, name = file.name;
  await drop();
  $('error').textContent = '';
  if (mine.size > limits.max_upload)
    return fail(`${name} has ${megabytes(mine.size)}; this page takes at most ${megabytes(limits.max_upload)}.`);
  setBusy(true);
  say(`Sending ${name}`);
  const query = new URLSearchParams(chosen.map(id => [id, $(id).value]));
  try {
    const headers = { 'Content-Type': 'application/octet-stream' };
    const { id } = await (await ask(`/jobs?${query}`, { method: 'POST', body: mine, headers })).json();
    job = id;
    const facts = await wait(id, name);
    if (facts) await show(id, facts, name);
  } catch (error) {
    fail(`${name}: ${error.message}`);
  }
  setBusy(false);
  await drop();
}

async function wait(id, name) {
  while (job === id) {
    const now = await (await ask(`/jobs/${id}`)).json();
    if (now.state === 'done') return now.facts;
    if (now.state === 'failed') throw new Error(now.error ?? 'it was cancelled');
    if (now.state === 'waiting') say(`${plural(now.ahead, 'file')} before ${name}`);
    else if (now.total > 1) say(`Deraining ${name}: frame ${now.done} of ${now.total}`);
    else say(`Deraining ${name}`);
    if (now.total > 1) { $('progress').max = now.total; $('progress').value = now.done; }
    await pause(200);
  }
  return null;
}

async function drop() {
  const old = job;
  job = null;
  if (old) await fetch(`/jobs/${old}`, { method: 'DELETE', keepalive: true }).catch(() => {});
}

function setBusy(busy) {
  $('busy').hidden = !busy;
  $('progress').removeAttribute('value');
  for (const id of ['file', 'sample', 'again']) $(id).disabled = busy;
  $('again').hidden = false;
}

async function show(id, facts, name) {
  const parts = await Promise.all(['before', 'after'].map(async part => (await ask(`/jobs/${id}/${part}`)).blob()));
  for (const url of shown) URL.revokeObjectURL(url);
  shown = parts.map(part => URL.createObjectURL(part));
  const clip = facts.kind === 'clip';
  ['before', 'after'].forEach((part, index) => {
    const media = document.createElement(clip ? 'video' : 'img');
    if (clip) Object.assign(media, { muted: true, loop: true, playsInline: true });
    else media.alt = part === 'before' ? `${name}, as it came` : `${name}, without rain`;
    media.src = shown[index];
    $(part).replaceChildren(media);
  });
  $('result').hidden = false;
  $('result-title').textContent = `${name}, before and after`;
  $('compare').style.setProperty('--ratio', facts.width / facts.height);
  cut(50);
  $('player').hidden = !clip;
  if (clip) attachPlayer();
  $('download').href = shown[1];
  $('download').download = name.replace(/(\.[^.]*)?$/, clip ? '-derained.mp4' : '-derained.png');
  list(facts);
  say(`Done: ${name}, ${speed(facts)}, ${status(facts)}.`);
}

const speed = ({ ms }) => ms < 9999.5 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms a frame` : `${(ms / 1000).toFixed(1)} s a frame`;
const status = facts => facts.frames === 1 ? Object.keys(facts.status)[0]
  : Object.entries(facts.status).map(([name, count]) => `${count} ${name}`).join(', ');

function list(facts) {
  const reasons = Object.entries(facts.reasons ?? {}).map(([reason, count]) => `${plural(count, 'frame')}: ${reason}`);
  const rows = {
    'Model': facts.model,
    'Backend': `${facts.backend}, ${facts.precision}, on ${facts.device}`,
    'Size': `${facts.width} × ${facts.height}` + (facts.frames > 1 ? `, ${facts.frames} frames` : ''),
    'Time': speed(facts),
    'Status': [status(facts), ...reasons].join('; '),
  };
  if (facts.note) rows.Note = facts.note;
  $('facts').replaceChildren(...Object.entries(rows).map(([term, text]) => {
    const row = document.createElement('div');
    row.append(Object.assign(document.createElement('dt'), { textContent: term }),
      Object.assign(document.createElement('dd'), { textContent: text }));
    return row;
  }));
}

function cut(percent) {
  $('cut').value = percent;
  $('cut').setAttribute('aria-valuetext', `${percent} percent before, ${100 - percent} percent after`);
  $('compare').style.setProperty('--cut', `${percent}%`);
}

// "Before" leads, "after" follows.
function attachPlayer() {
  const [after, before] = document.querySelectorAll('.compare video');
  const follow = () => {
    if (Math.abs(after.currentTime - before.currentTime) > 0.05) after.currentTime = before.currentTime;
  };
  before.onplay = () => { after.play(); $('play').textContent = 'Pause'; };
  before.onpause = () => { after.pause(); follow(); $('play').textContent = 'Play'; };
  before.ontimeupdate = () => {
    $('position').value = 1000 * before.currentTime / before.duration || 0;
    follow();
  };
  before.onseeked = follow;
  before.onerror = () => fail('This browser cannot play the clip; the download works all the same.');
  $('play').onclick = () => before.paused ? before.play() : before.pause();
  $('play').textContent = 'Play';
  $('position').oninput = event => { before.currentTime = event.target.value / 1000 * before.duration; };
}

function take(next) {
  if (!next) return;
  if (!$('busy').hidden) return say('One file at a time: cancel this one, or wait for it.');
  file = next;
  derain();
}

$('file').addEventListener('change', event => {
  take(event.target.files[0]);
  event.target.value = '';  // the same file may be chosen again
});
$('form').addEventListener('submit', event => { event.preventDefault(); take(file); });
$('sample').addEventListener('click', async () => {
  say('Making it rain');
  try {
    take(new File([await (await ask('/sample')).blob()], 'sample.png'));
  } catch (error) {
    fail(error.message);
  }
});
$('cancel').addEventListener('click', () => { drop(); say('Cancelled.'); });
$('cut').addEventListener('input', event => cut(Number(event.target.value)));
addEventListener('pagehide', drop);

addEventListener('dragover', event => { event.preventDefault(); $('drop').classList.add('over'); });
for (const kind of ['dragleave', 'drop']) addEventListener(kind, () => $('drop').classList.remove('over'));
addEventListener('drop', event => { event.preventDefault(); take(event.dataTransfer.files[0]); });

try {
  limits = await (await ask('/choices')).json();
  $('model').append(...limits.models.map(name => new Option(name, name)));
  $('limits').append(`; at most ${megabytes(limits.max_upload)}, and the first ${limits.max_frames} frames of a clip`);
  const { backends, precisions, gpu } = await (await ask('/backends')).json();
  for (const { name, reason } of backends) {
    const option = new Option(reason ? `${name} (not on this machine)` : name, name);
    option.disabled = Boolean(reason);
    option.title = reason ?? '';
    $('backend').append(option);
  }
  $('precision').append(...precisions.map(name => new Option(name, name)));
  if (gpu) $('longest').value = '';
} catch (error) {
  fail(error.message);
}
