// Runs before anything is painted, so that a page in dark colours does not flash.
const chosen = localStorage.getItem("editmem.theme");
if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
