// The transcript: a click on a word opens a small form to drop it or to type another; a dropped one comes back by a click.
// Runs as `js_on_load` of a gr.HTML; the slots stand in the page, the server draws them anew.
let chosen = null; // the word in the form: its number, itself, and what is typed for it

function slots() {
	return JSON.parse(element.querySelector("[data-slots]").dataset.slots);
}

function send(change) {
	const all = slots();
	change(all[chosen.number]);
	close();
	trigger("edit", { slots: all });
}

function open(number, typed) {
	const form = element.querySelector(".mlf-edit");
	chosen = { number, word: slots()[number].word, typed };
	form.elements.word.value = typed;
	form.hidden = false;
	mark();
	return form.elements.word;
}

function close() {
	chosen = null;
	element.querySelector(".mlf-edit").hidden = true;
	mark();
}

function mark() {
	for (const word of element.querySelectorAll(".mlf-word"))
		word.classList.toggle("chosen", chosen !== null && Number(word.dataset.n) === chosen.number);
}

element.addEventListener("click", (event) => {
	const word = event.target.closest(".mlf-word");
	if (word) {
		const number = Number(word.dataset.n);
		const { word: text, off } = slots()[number];
		if (off) {
			chosen = { number };
			send((slot) => (slot.off = false));
			return;
		}
		const field = open(number, text);
		field.select();
		field.focus();
	} else if (event.target.dataset.do === "drop") send((slot) => (slot.off = true));
	else if (event.target.dataset.do === "close") close();
});
element.addEventListener("input", (event) => {
	if (chosen) chosen.typed = event.target.value;
});
element.addEventListener("keydown", (event) => {
	if (event.key !== "Escape" || !chosen) return;
	const { number } = chosen;
	close();
	element.querySelector(`.mlf-word[data-n="${number}"]`).focus();
});
element.addEventListener("submit", (event) => {
	event.preventDefault();
	const typed = event.target.elements.word.value.trim();
	send((slot) => {
		if (typed) slot.word = typed;
		else slot.off = true;
	});
});
// Drawn anew while somebody types, as when the words' effects arrive: what is typed stays, for that word.
new MutationObserver(() => {
	if (!chosen) return;
	const form = element.querySelector(".mlf-edit");
	const slot = form ? slots()[chosen.number] : null;
	if (!slot || slot.word !== chosen.word || slot.off) {
		chosen = null;
		if (form) form.hidden = true;
	} else if (form.hidden) open(chosen.number, chosen.typed).focus();
	else mark();
}).observe(element, { subtree: true, childList: true, attributeFilter: ["class", "hidden"] });
