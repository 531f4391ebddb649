const player = JSON.parse(document.getElementById("player").textContent);
const $ = (id) => document.getElementById(id);
const canvas = $("figure"), video = $("clip"), figure = new Figure(canvas, player.motion, player.skeleton);
let time = 0, playing = !matchMedia("(prefers-reduced-motion: reduce)").matches, speed = 1, before = performance.now();
// The policy of the page allows no style attributes; properties that a script sets are allowed.
document.querySelectorAll(".track span").forEach((event) => {
  const { start, end } = event.dataset, percent = (seconds) => `${100 * seconds / player.seconds}%`;
  event.style.left = percent(start); event.style.width = percent(end - start);
});
const marked = [...document.querySelectorAll("[data-start]")];

// The motion's clock is the reference; the clip is synchronised when it has drifted by more than a few frames.
function syncClip() {
  if (!video) return;
  const end = Math.max(0, (video.duration || player.seconds) - 0.01), target = Math.min(time, end);
  if (playing && time < end) {
    video.playbackRate = speed;
    if (video.paused) video.play().catch(() => {});
    if (Math.abs(video.currentTime - target) > 0.12 && !video.seeking) video.currentTime = target;
  } else {
    if (!video.paused) video.pause();
    if (Math.abs(video.currentTime - target) > 0.015 && !video.seeking) video.currentTime = target;
  }
}
function drawKeypoints() {
  const overlay = $("overlay");
  if (!overlay) return;
  const box = overlay.getBoundingClientRect(), ratio = devicePixelRatio || 1;
  overlay.width = box.width * ratio; overlay.height = box.height * ratio;
  if (!$("points").checked || !video.videoWidth) return;
  const ctx = overlay.getContext("2d"), { crop, edges, keypoints } = player.clip, colours = figure.colours();
  colours.middle = "#f2f2f2";
  const fit = Math.min(overlay.width / video.videoWidth, overlay.height / video.videoHeight);
  const left = (overlay.width - fit * video.videoWidth) / 2, top = (overlay.height - fit * video.videoHeight) / 2;
  const k = fit * video.videoWidth / Math.max(1, crop[2] - crop[0]);
  // The clip's own time selects the keypoints of the displayed frame.
  const row = keypoints[Math.min(keypoints.length - 1, Math.round(video.currentTime * player.motion.fps))];
  const at = (i) => [left + (row[3 * i] - crop[0]) * k, top + (row[3 * i + 1] - crop[1]) * k];
  ctx.lineCap = "round";
  for (const [wide, dark] of [[5, true], [2.5, false]]) for (const [a, b, side] of edges) {
    if (row[3 * a + 2] < 0.3 || row[3 * b + 2] < 0.3) continue;
    ctx.strokeStyle = dark ? "#15181c" : colours[side]; ctx.lineWidth = wide * ratio;
    ctx.beginPath(); ctx.moveTo(...at(a)); ctx.lineTo(...at(b)); ctx.stroke();
  }
}
function show() {
  figure.draw(time); drawKeypoints();
  $("seek").value = time;
  $("time").textContent = `${time.toFixed(2)} / ${player.seconds.toFixed(2)} s`;
  $("play").textContent = playing ? "Pause" : "Play";
  for (const element of marked) element.classList.toggle("now", time >= +element.dataset.start && time < +element.dataset.end);
  const track = document.querySelector(".track");
  if (track) {
    const lanes = $("lanes").getBoundingClientRect(), box = track.getBoundingClientRect();
    $("cursor").style.left = `${box.left - lanes.left + box.width * time / player.seconds}px`;
  } else $("cursor").hidden = true;
}
function tick(now) {
  const step = Math.min(0.1, (now - before) / 1000); before = now;
  if (playing) { time += step * speed; if (time >= player.seconds) time = 0; }
  syncClip(); show();
  requestAnimationFrame(tick);
}
function seek(to) { time = Math.max(0, Math.min(player.seconds, to)); }
$("play").addEventListener("click", () => { playing = !playing; });
$("seek").addEventListener("input", (event) => { playing = false; seek(+event.target.value); });
$("speed").addEventListener("change", (event) => { speed = +event.target.value; });
document.querySelectorAll("li[data-start]").forEach((line) => line.addEventListener("click", () => seek(+line.dataset.start)));
addEventListener("keydown", (event) => {
  if (event.key === " " && !/^(BUTTON|INPUT|SELECT)$/.test(event.target.tagName)) { event.preventDefault(); playing = !playing; }
});

let drag = null;
const rotate = (yaw, pitch) => { figure.yaw += yaw; figure.pitch = Math.max(-0.2, Math.min(1.5, figure.pitch + pitch)); };
const zoom = (factor) => { figure.zoom = Math.max(0.4, Math.min(4, figure.zoom * factor)); };
canvas.addEventListener("pointerdown", (event) => { drag = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", (event) => {
  if (!drag) return;
  rotate((drag[0] - event.clientX) * 0.008, (event.clientY - drag[1]) * 0.006);
  drag = [event.clientX, event.clientY];
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { drag = null; });
canvas.addEventListener("wheel", (event) => { event.preventDefault(); zoom(Math.exp(-event.deltaY * 0.001)); }, { passive: false });
canvas.addEventListener("keydown", (event) => {
  const act = { ArrowLeft: () => rotate(0.1, 0), ArrowRight: () => rotate(-0.1, 0), ArrowUp: () => rotate(0, 0.08), ArrowDown: () => rotate(0, -0.08), "+": () => zoom(1.1), "-": () => zoom(0.9) }[event.key];
  if (act) { event.preventDefault(); act(); }
});
show();
requestAnimationFrame(tick);
