const data = JSON.parse(document.getElementById("motions").textContent);
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
const figures = [...document.querySelectorAll("canvas[data-motion]")].map((canvas) => {
  const figure = new Figure(canvas, data.motions[canvas.dataset.motion], data.skeleton);
  figure.visible = true; figure.playing = !reducedMotion; figure.time = 0;
  canvas.addEventListener("click", () => { figure.playing = !figure.playing; });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === " " || event.key === "Enter") { event.preventDefault(); figure.playing = !figure.playing; }
  });
  return figure;
});
const byCanvas = new Map(figures.map((figure) => [figure.canvas, figure]));
const observer = new IntersectionObserver((entries) => entries.forEach((e) => { byCanvas.get(e.target).visible = e.isIntersecting; }));
figures.forEach((figure) => { observer.observe(figure.canvas); figure.draw(figure.seconds / 2); });
let before = performance.now();
function tick(now) {
  const step = Math.min(0.1, (now - before) / 1000); before = now;
  for (const figure of figures) if (figure.visible && figure.playing) {
    figure.time = (figure.time + step) % (figure.seconds + 0.4);
    figure.draw(figure.time);
  }
  requestAnimationFrame(tick);
}
requestAnimationFrame(tick);
addEventListener("resize", () => figures.forEach((figure) => figure.draw(figure.time || figure.seconds / 2)));
addEventListener("beforeprint", () => figures.forEach((figure) => figure.draw(figure.seconds / 2)));
