// What Gradio 6.31 leaves unsaid to a screen reader: names of buttons, and roles that their content does not have.
{
  const enlarge = navigator.language.startsWith("zh") ? "放大图片" : "Enlarge the picture";
  const repair = () => {
    for (const list of document.querySelectorAll(".examples[role=list]")) list.setAttribute("role", "group");
    for (const arrow of document.querySelectorAll(".thought-group .arrow:not([inert])")) arrow.inert = true;
    for (const button of document.querySelectorAll(".image-container > button:not([aria-label])")) button.setAttribute("aria-label", enlarge);
  };
  document.addEventListener("DOMContentLoaded", () => new MutationObserver(repair).observe(document.body, { subtree: true, childList: true }));
}
