// The examples: a click shows the clip at once and asks for its answer.
element.addEventListener("click", (event) => {
	const card = event.target.closest("[data-name]");
	if (!card) return;
	const detail = { name: card.dataset.name, title: card.querySelector("b").textContent };
	window.dispatchEvent(new CustomEvent("mlf-example", { detail }));
	window.dispatchEvent(new Event("mlf-given"));
	trigger("choose", detail);
});
