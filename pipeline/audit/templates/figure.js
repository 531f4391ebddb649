// A stick figure on a canvas. `skeleton` is {edges: [[parent, child, "left"|"right"|"middle"]...], head, neck}.
function unpack(motion) {
  const text = atob(motion.data), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const view = new DataView(bytes.buffer), joints = new Float32Array(bytes.length / 2);
  for (let i = 0; i < joints.length; i++) joints[i] = view.getInt16(2 * i, true) * motion.unit;
  return joints;
}
class Figure {
  constructor(canvas, motion, skeleton) {
    Object.assign(this, { canvas, motion, skeleton, joints: unpack(motion), count: 24, zoom: 1, pitch: 0.18 });
    this.seconds = motion.frames / motion.fps;
    const j = this.joints, lx = j[3] - j[6], lz = j[5] - j[8];
    this.yaw = Math.atan2(-lz, lx) + 0.6;  // from the front left of the person's initial heading
    this.low = Infinity; this.high = -Infinity; this.reach = 0.5;
    for (let f = 0; f < motion.frames; f++) for (let k = 0; k < 24; k++) {
      const at = 3 * (24 * f + k), root = 3 * 24 * f;
      this.low = Math.min(this.low, j[at + 1]); this.high = Math.max(this.high, j[at + 1]);
      this.reach = Math.max(this.reach, Math.hypot(j[at] - j[root], j[at + 2] - j[root + 2]));
    }
    // Smooth camera path: the mean of the root over a second around each frame.
    const half = Math.round(motion.fps / 2);
    this.follow = Array.from({ length: motion.frames }, (_, f) => {
      let x = 0, z = 0, n = 0;
      for (let g = Math.max(0, f - half); g <= Math.min(motion.frames - 1, f + half); g++) { x += j[72 * g]; z += j[72 * g + 2]; n++; }
      return [x / n, z / n];
    });
  }
  colours() {
    const css = getComputedStyle(this.canvas);
    return Object.fromEntries(["left", "right", "middle", "line", "ground", "soft"].map((n) => [n, css.getPropertyValue("--" + n).trim()]));
  }
  resize() {
    const ratio = window.devicePixelRatio || 1, box = this.canvas.getBoundingClientRect();
    const w = Math.round(box.width * ratio), h = Math.round(box.height * ratio);
    if (w && (this.canvas.width !== w || this.canvas.height !== h)) { this.canvas.width = w; this.canvas.height = h; }
  }
  draw(time) {
    this.resize();
    const { width: w, height: h } = this.canvas, ctx = this.canvas.getContext("2d"), c = this.colours();
    const f = Math.max(0, Math.min(this.motion.frames - 1, time * this.motion.fps)), f0 = Math.floor(f), f1 = Math.min(f0 + 1, this.motion.frames - 1);
    const share = f - f0, j = this.joints, mix = (a, b) => a + (b - a) * share;
    const cx = mix(this.follow[f0][0], this.follow[f1][0]), cz = mix(this.follow[f0][1], this.follow[f1][1]);
    const cy = (Math.min(this.low, 0) + this.high) / 2;
    const size = Math.max(this.high - Math.min(this.low, 0) + 0.35, 1.6 * this.reach * Math.min(1, h / w) + 0.4, 1.4);
    const far = 2.6 * size, scale = (0.92 * Math.min(h, w * 1.15) * far / size) * this.zoom;
    const cosY = Math.cos(this.yaw), sinY = Math.sin(this.yaw), cosP = Math.cos(this.pitch), sinP = Math.sin(this.pitch);
    const project = (x, y, z) => {
      x -= cx; y -= cy; z -= cz;
      const rx = x * cosY - z * sinY, rz = x * sinY + z * cosY, depth = far - (rz * cosP + y * sinP);
      const k = scale / Math.max(depth, 0.3);
      return [w / 2 + rx * k, h / 2 - (y * cosP - rz * sinP) * k, depth, k];
    };
    ctx.clearRect(0, 0, w, h);
    ctx.lineCap = "round"; ctx.lineJoin = "round";
    ctx.strokeStyle = c.line; ctx.lineWidth = Math.max(1, h / 420);
    const gx = Math.round(cx / 0.5) * 0.5, gz = Math.round(cz / 0.5) * 0.5;
    for (let i = -5; i <= 5; i++) for (let k = -5; k < 5; k++) {
      ctx.globalAlpha = Math.max(0, 1 - Math.hypot(i, k + 0.5) / 5.6);
      for (const [a, b] of [[[gx + i / 2, gz + k / 2], [gx + i / 2, gz + (k + 1) / 2]], [[gx + k / 2, gz + i / 2], [gx + (k + 1) / 2, gz + i / 2]]]) {
        const p = project(a[0], 0, a[1]), q = project(b[0], 0, b[1]);
        ctx.beginPath(); ctx.moveTo(p[0], p[1]); ctx.lineTo(q[0], q[1]); ctx.stroke();
      }
    }
    const joints2d = [], shadow = [];
    for (let k = 0; k < 24; k++) {
      const a = 72 * f0 + 3 * k, b = 72 * f1 + 3 * k, x = mix(j[a], j[b]), y = mix(j[a + 1], j[b + 1]), z = mix(j[a + 2], j[b + 2]);
      joints2d.push(project(x, y, z)); shadow.push(project(x, 0, z));
    }
    const line = (p, q, wide, colour) => {
      ctx.strokeStyle = colour; ctx.lineWidth = wide; ctx.beginPath(); ctx.moveTo(p[0], p[1]); ctx.lineTo(q[0], q[1]); ctx.stroke();
    };
    ctx.globalAlpha = 0.18; ctx.strokeStyle = c.soft; ctx.lineWidth = 0.09 * shadow[0][3]; ctx.beginPath();
    for (const [a, b] of this.skeleton.edges) { ctx.moveTo(shadow[a][0], shadow[a][1]); ctx.lineTo(shadow[b][0], shadow[b][1]); }
    ctx.stroke();
    ctx.globalAlpha = 1;
    const order = [...this.skeleton.edges].sort((e, g) => joints2d[g[0]][2] + joints2d[g[1]][2] - joints2d[e[0]][2] - joints2d[e[1]][2]);
    const hidden = new Set((this.motion.unseen || []).filter(([first, end]) => first <= f0 && f0 < end).flatMap((span) => span[2]));
    for (const [a, b, side] of order) {
      ctx.globalAlpha = hidden.has(a) || hidden.has(b) ? 0.22 : 1;  // nobody saw it: its pose is made up
      line(joints2d[a], joints2d[b], 0.085 * joints2d[a][3] + 2.5, c.ground);
      line(joints2d[a], joints2d[b], 0.085 * joints2d[a][3], c[side]);
    }
    ctx.globalAlpha = 1;
    const head = joints2d[this.skeleton.head], neck = joints2d[this.skeleton.neck], up = [head[0] - neck[0], head[1] - neck[1]];
    const n = Math.max(Math.hypot(...up), 1e-3), r = 0.1 * head[3];
    ctx.fillStyle = c.middle; ctx.beginPath(); ctx.arc(head[0] + up[0] / n * r * 0.7, head[1] + up[1] / n * r * 0.7, r, 0, 7); ctx.fill();
  }
}
