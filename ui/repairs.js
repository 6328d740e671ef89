// What Gradio 6.31 does not do by itself.
{
  // Names for a screen reader, and no roles that their content does not have.
  const enlarge = navigator.language.startsWith("zh") ? "放大图片" : "Enlarge the picture";
  const repair = () => {
    for (const list of document.querySelectorAll(".examples[role=list]")) list.setAttribute("role", "group");
    for (const arrow of document.querySelectorAll(".thought-group .arrow:not([inert])")) arrow.inert = true;
    for (const button of document.querySelectorAll(".image-container > button:not([aria-label])")) button.setAttribute("aria-label", enlarge);
  };
  new MutationObserver(repair).observe(document, { subtree: true, childList: true });

  // An edited message with pictures: Gradio's own way fails in the page. Its new words go to the server, which knows the pictures.
  document.addEventListener("click", (event) => {
    const row = document.querySelector(".user-row:has(.edit-textarea)");
    const [submit, cancel] = row?.nextElementSibling?.querySelectorAll("button") ?? [];
    if (!submit?.contains(event.target)) return;
    event.stopImmediatePropagation();
    const rows = [...row.parentElement.querySelectorAll(":scope > .user-row")];
    const box = document.querySelector("#edited textarea");
    box.value = JSON.stringify({ turn: rows.indexOf(row), text: row.querySelector(".edit-textarea").value });
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.dispatchEvent(new KeyboardEvent("keypress", { key: " ", bubbles: true })); // what Gradio takes for input
    cancel.click();
  }, true);
}
