"use strict";
// Under the pointer: the values of every curve there.
for (const plot of document.querySelectorAll(".plot[data-x0]")) {
  const tip = plot.querySelector(".tip");
  const low = Number(plot.dataset.x0), high = Number(plot.dataset.x1);
  const curves = [...plot.querySelectorAll("path[data-values]")].map((path) => ({
    label: path.dataset.label,
    spots: path.dataset.values.split(" ").filter(Boolean).map((pair) => pair.split(",").map(Number)),
  }));
  const nearest = (spots, x) => {
    let left = 0, right = spots.length - 1;
    while (left < right) {
      const middle = (left + right) >> 1;
      if (spots[middle][0] < x) left = middle + 1; else right = middle;
    }
    const before = spots[Math.max(0, left - 1)];
    return Math.abs(before[0] - x) < Math.abs(spots[left][0] - x) ? before : spots[left];
  };
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const x = low + share * (high - low);
    const rows = curves.filter((curve) => curve.spots.length).map((curve) => {
      const [at, y] = nearest(curve.spots, x);
      return `${plot.dataset.x} ${at}  ${curve.label}  ${y}`;
    });
    tip.textContent = rows.join("\n");
    tip.hidden = rows.length === 0;
    tip.style.left = share < 0.5 ? `${share * 100}%` : "auto";
    tip.style.right = share < 0.5 ? "auto" : `${(1 - share) * 100}%`;
  });
  plot.addEventListener("pointerleave", () => { tip.hidden = true; });
}
