// What Gradio 6.31 does not do by itself.
{
  // Names for a screen reader, and no roles that their content does not have.
  const enlarge = navigator.language.startsWith("zh") ? "放大图片" : "Enlarge the picture";
  let groups = 0;
  let refused = ""; // why the server did not take the last call that it did not take
  const repair = () => {
    // Of a call that does not wait in the queue Gradio's page says "Error" and no more.
    for (const error of document.querySelectorAll("[data-testid=status-tracker] .error")) {
      if (refused && error.textContent !== refused) error.textContent = refused;
    }
    for (const list of document.querySelectorAll(".examples[role=list]")) list.setAttribute("role", "group");
    for (const arrow of document.querySelectorAll(".thought-group .arrow:not([inert])")) arrow.inert = true;
    for (const button of document.querySelectorAll(".image-container > button:not([aria-label])")) button.setAttribute("aria-label", enlarge);
    for (const group of document.querySelectorAll("fieldset:has(input[type=radio])")) {
      const title = group.querySelector("[data-testid=block-info]")?.textContent.trim() ?? "";
      if (group.ariaLabel !== title) group.ariaLabel = title;
      // Arrow keys go through choices of one name; Gradio gives each a name of its own, and another one whenever it changes.
      group.dataset.choices ??= `choices-${++groups}`;
      for (const choice of group.querySelectorAll("input[type=radio]")) {
        if (choice.name !== group.dataset.choices) choice.name = group.dataset.choices;
      }
    }
    // Until an answer has ended or is stopped no message is edited, asked again or taken back: Gradio sees to it only when
    // something of the answer is there.
    const busy = document.querySelector(".stop-button") !== null;
    for (const buttons of document.querySelectorAll(".user-row + .message-buttons")) {
      const editing = buttons.previousElementSibling.querySelector(".edit-textarea");
      // The last one edits; then the first one submits.
      const button = [...buttons.querySelectorAll("button")].at(editing ? 0 : -1);
      if (button) button.disabled = busy;
    }
    // Retry by its drawing: its name is another in each language.
    for (const button of document.querySelectorAll('.message-buttons button:has(path[d^="M19.1679 9"], [aria-label=undo])')) button.disabled = busy;
  };
  new MutationObserver(repair).observe(document, { subtree: true, childList: true, attributeFilter: ["name"] });

  // A picture that this browser cannot show, such as a phone's HEIC, stands as its file's name; the model reads it all the same.
  document.addEventListener("error", ({ target }) => {
    if (!target.matches?.("img[src*='/gradio_api/file=']:not([hidden])")) return;
    const name = document.createElement("span");
    name.className = "unseen";
    name.textContent = decodeURIComponent(target.src.split("/").at(-1));
    target.hidden = true;
    target.after(name);
  }, true);

  // Stop and Clear, as long as the server has not said which event it is that they are to cancel: without that it refuses to.
  const { fetch } = window;
  const joined = new Map();
  const heard = async (answer) => {
    const told = answer.ok ? null : await answer.clone().json().catch(() => null);
    refused = [told?.error, told?.detail].find((sentence) => typeof sentence === "string") ?? "";
    return answer;
  };
  const untaken = () => { window.ended ||= "untaken"; };

  // Where the server cannot be reached Gradio's page waits for it and then loads itself anew, without the conversation, which the server still has, and
  // without what was typed and attached. Here the call ends.
  const unreached = navigator.language.startsWith("zh") ? "暂时无法连接服务器。" : "The server cannot be reached at the moment.";
  const failed = () => Response.json({ error: unreached }, { status: 502 });
  // Of a message that is being typed no price is told then. Whatever else does not wait in the queue does the same when it is done twice.
  const price = () => window.gradio_config.dependencies.find(({ api_name }) => api_name === "price").id;
  const tried = async (address, options) => {
    for (const until = Date.now() + 10_000; ;) {
      const answer = await fetch(address, options).catch(() => null);
      if (answer) return answer;
      if (JSON.parse(options.body).fn_index === price()) return Response.json({ data: [""] });
      if (Date.now() > until) return failed();
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  };
  // The stream that answers come in: where it breaks off, it ends, and with it whatever waits for it.
  const ENDS = [{ msg: "unexpected_error", message: unreached, success: false }, { msg: "close_stream" }];
  const GONE = '"session_not_found":true'; // so the server says where it has not yet noticed that the stream before this one broke off
  const streamed = async (request) => {
    const answer = await fetch(request).catch(() => null);
    const items = answer?.ok ? answer.body.pipeThrough(new TextDecoderStream()).getReader() : null;
    const broken = () => { window.ended ||= "broken"; };
    let whole = false;
    const pull = async (controller) => {
      const { value } = await items?.read().catch(() => ({})) ?? {};
      if (value !== undefined) {
        whole ||= value.includes('"msg":"close_stream"');
        if (value.includes(GONE)) broken();
        controller.enqueue(value.replace(GONE, '"session_not_found":false'));
        return;
      }
      if (!whole && !request.signal.aborted) {
        broken();
        controller.enqueue(ENDS.map((item) => `data: ${JSON.stringify(item)}\n\n`).join(""));
      }
      controller.close();
    };
    return new Response(new ReadableStream({ pull }).pipeThrough(new TextEncoderStream()));
  };

  window.fetch = async (address, options) => {
    const [way] = String(address.url ?? address).match(/(queue\/join|queue\/data|run\/predict|cancel)(?=$|\?)/) ?? [];
    if (!way) return fetch(address, options);
    if (way === "queue/data") return streamed(address);
    if (way === "run/predict") return tried(address, options).then(heard);
    const asked = JSON.parse(options.body);
    if (way === "cancel") {
      asked.event_id ??= await joined.get(asked.fn_index);
      return fetch(address, { ...options, body: JSON.stringify(asked) });
    }
    // Where the queue is full Gradio's page says so in its own English; with any other status it says what the server does.
    const known = (answer) => answer.status === 503 ? new Response(answer.body, { status: 429 }) : answer;
    const answered = fetch(address, options).catch(failed).then(known).then(heard);
    answered.then((answer) => answer.ok || untaken());
    joined.set(asked.fn_index, answered.then((answer) => answer.clone().json()).then(({ event_id }) => event_id, () => null));
    return answered;
  };

  // An edited message with pictures: Gradio's own way fails in the page. Its new words go to the server, which knows the pictures.
  document.addEventListener("click", (event) => {
    const row = document.querySelector(".user-row:has(.edit-textarea)");
    const [submit, cancel] = row?.nextElementSibling?.querySelectorAll("button") ?? [];
    if (!submit?.contains(event.target)) return;
    event.stopImmediatePropagation();
    const rows = [...row.parentElement.querySelectorAll(":scope > .user-row")];
    // Messages that follow each other stand in one row: the last of them is the one that was answered.
    const text = [...row.querySelectorAll(".edit-textarea")].at(-1).value;
    const box = document.querySelector("#edited textarea");
    box.value = JSON.stringify({ turn: rows.indexOf(row), text });
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.dispatchEvent(new KeyboardEvent("keypress", { key: " ", bubbles: true })); // what Gradio takes for input
    cancel.click();
  }, true);
}
