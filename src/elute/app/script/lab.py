"""What Streamlit runs for each person who looks: which pages there are. It lies in a folder of its own, because
Streamlit lets everything beside it be imported by its bare name."""

from __future__ import annotations

from collections.abc import Callable


def main() -> None:
    """Draw the side bar and the page that was chosen."""
    import streamlit as st

    from elute.app import compare, enrich, explore, monitor, perturb, steer, tissue, tissue_runs
    from elute.app.session import guarded, lab, tell
    from elute.base.errors import EluteError

    st.set_page_config(page_title="elute Lab", layout="wide")
    shown: dict[str, tuple[str, Callable[[], None]]] = {
        "explore": ("Explore", explore.show),
        "steer": ("Steer", steer.show),
        "perturb": ("Perturb", perturb.show),
        "enrich": ("Enrich my genes", enrich.show),
        "compare": ("Compare runs", compare.show),
        "monitor": ("Train monitor", monitor.show),
    }
    try:
        mine, any_tissue = tissue_runs.is_run(lab()), bool(tissue_runs.runs())
    except EluteError:
        mine = any_tissue = False  # the pages say what is wrong
    if mine:  # of cells there is nothing in such a run
        shown = {name: page for name, page in shown.items() if name not in ("explore", "steer", "perturb", "compare")}
    if any_tissue:
        shown = {"tissue": ("Tissue", tissue.show), **shown} if mine else {**shown, "tissue": ("Tissue", tissue.show)}
    pages = [
        st.Page(guarded(show), title=title, url_path=name, default=i == 0)
        for i, (name, (title, show)) in enumerate(shown.items())
    ]
    page = st.navigation(pages)
    with st.sidebar:
        try:
            st.text(lab().folder.name)
            sites = [] if mine else list(lab().sites())
            if sites:
                kept = st.session_state.get("site")
                st.selectbox("Site", sites, index=sites.index(kept) if kept in sites else 0, key="site")
        except EluteError as error:
            tell(error)
    page.run()


if __name__ == "__main__":
    main()
