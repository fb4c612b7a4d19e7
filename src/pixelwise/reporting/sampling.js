"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const key = "pixelwise-sample-" + data.sample;
const choices = [...data.classes.map((each) => each.name), data.unsure];
let answers = {};
let index = 0;
let kept = true;
let changed = false;

try {
  answers = JSON.parse(localStorage.getItem(key)) || {};
  localStorage.setItem(key, JSON.stringify(answers));
} catch {
  kept = false;
}
get("warning").hidden = kept;

function keep() {
  changed = true;
  try {
    localStorage.setItem(key, JSON.stringify(answers));
  } catch {
    kept = false;
    get("warning").hidden = false;
  }
}

function show() {
  const point = data.points[index];
  const count = data.points.length;
  const done = Object.keys(answers).length;
  get("heading").textContent = `Point ${point.point} of ${count}`;
  get("done").textContent = `${done} of ${count} answered`;
  get("progress").value = done;
  get("place").textContent = point.place;
  get("chip").hidden = !point.chip;
  if (point.chip) {
    get("chip").src = point.chip;
    get("chip").alt = `The image around point ${point.point}`;
  }
  get("answers").querySelectorAll("button").forEach((button, choice) => {
    button.setAttribute("aria-pressed", String(answers[point.point] === choices[choice]));
  });
  get("back").disabled = index === 0;
  get("skip").disabled = index === count - 1;
  get("open").disabled = done === count;
}

function go(to) {
  index = Math.min(Math.max(to, 0), data.points.length - 1);
  show();
}

function next() {
  const count = data.points.length;
  for (let step = 1; step <= count; step++) {
    const at = (index + step) % count;
    if (!(data.points[at].point in answers)) return go(at);
  }
  show();
}

function answer(choice) {
  if (choice >= choices.length) return;
  answers[data.points[index].point] = choices[choice];
  keep();
  next();
}

function quoted(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) || text !== text.trim() ? `"${text.replaceAll('"', '""')}"` : text;
}

function save() {
  const lines = ["sample,point,row,column,answer"];
  for (const each of data.points) {
    lines.push([data.sample, each.point, each.row, each.column, answers[each.point] ?? ""].map(quoted).join(","));
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  changed = false;
}

choices.forEach((name, choice) => {
  const last = choice === choices.length - 1;
  const item = document.createElement("li");
  const button = document.createElement("button");
  const hint = document.createElement("kbd");
  const colour = document.createElement("i");
  const text = document.createElement("bdi");
  button.type = "button";
  hint.textContent = last ? "0" : choice < 9 ? String(choice + 1) : "";
  text.textContent = last ? "Unsure" : name;
  if (!last) colour.style.background = data.classes[choice].colour;
  button.append(hint, ...(last ? [] : [colour]), text);
  button.addEventListener("click", () => answer(choice));
  item.append(button);
  get("answers").append(item);
});
get("back").addEventListener("click", () => go(index - 1));
get("skip").addEventListener("click", () => go(index + 1));
get("open").addEventListener("click", next);
get("save").addEventListener("click", save);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") go(index - 1);
  else if (event.key === "ArrowRight") go(index + 1);
  else if (event.key === "0") answer(choices.length - 1);
  else if (/^[1-9]$/.test(event.key) && Number(event.key) < choices.length) answer(Number(event.key) - 1);
});
window.addEventListener("beforeunload", (event) => {
  if (changed && !kept) event.preventDefault();
});
if (Object.keys(answers).length) {
  index = -1;
  next();
  index = Math.max(index, 0);
}
show();
