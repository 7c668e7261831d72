// The transcript: a click on a word opens a small form to drop it or to type another; a dropped one comes back by a click.
// Runs as `js_on_load` of a gr.HTML; the slots stand in the page, the server draws them anew.
let chosen = null;

function slots() {
	return JSON.parse(element.querySelector("[data-slots]").dataset.slots);
}

function send(change) {
	const all = slots();
	change(all[chosen]);
	trigger("edit", { slots: all });
}

element.addEventListener("click", (event) => {
	const word = event.target.closest(".mlf-word");
	const form = element.querySelector(".mlf-edit");
	if (word) {
		chosen = Number(word.dataset.n);
		if (slots()[chosen].off) {
			send((slot) => (slot.off = false));
			return;
		}
		form.hidden = false;
		form.elements.word.value = slots()[chosen].word;
		form.elements.word.select();
		form.elements.word.focus();
	} else if (event.target.dataset.do === "drop") send((slot) => (slot.off = true));
	else if (event.target.dataset.do === "close") form.hidden = true;
});
element.addEventListener("submit", (event) => {
	event.preventDefault();
	const typed = event.target.elements.word.value.trim();
	send((slot) => {
		if (typed) slot.word = typed;
		else slot.off = true;
	});
});
