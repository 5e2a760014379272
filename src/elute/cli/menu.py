"""Every command, by what a person has. This table is all that a help page of groups needs; commands load on demand."""

from __future__ import annotations

from elute.cli.commands import Lazy, LazyGroup

arrays = LazyGroup(
    "arrays",
    sections={
        "Rows in": [
            Lazy(
                "import", "elute.cli.arrays:import_", "Turn .npy, .npz, .pt, .parquet, .h5ad, HDF5, Zarr into a store."
            ),
            Lazy("demo", "elute.cli.arrays:demo", "Train a small network, capture it, and look at the rows."),
        ],
        "Rows checked and drawn": [
            Lazy("verify", "elute.cli.arrays:verify", "Read every byte of a store and say which shard is bad."),
            Lazy("split", "elute.cli.arrays:split", "Draw train, validation and test by donor, patient or site."),
            Lazy("stats", "elute.cli.arrays:stats", "Measure mean and spread, or PCA whitening, from training rows."),
        ],
        "Dictionaries": [
            Lazy("train", "elute.cli.dictionaries:train", "Train a sparse autoencoder, transcoder, CLT or crosscoder."),
            Lazy("eval", "elute.cli.dictionaries:evaluate", "Judge a dictionary, each number beside its control."),
            Lazy("encode", "elute.cli.dictionaries:encode", "Write the sparse codes of every row."),
            Lazy("export", "elute.cli.dictionaries:export", "Write it for SAELens, as safetensors, or to a hub."),
            Lazy(
                "import-dictionary",
                "elute.cli.dictionaries:import_dictionary",
                "Read one of SAELens, dictionary_learning or sparsify.",
            ),
        ],
        "Rows shown": [
            Lazy("head", "elute.cli.arrays:head", "Print what a store holds, and its first rows."),
            Lazy("report", "elute.cli.arrays:report", "Write a page about a store, to open in a browser."),
        ],
    },
    help="Any array of activations: import, check, split, measure, train, look.",
)

cells = LazyGroup(
    "cells",
    sections={
        "From cells to features": [
            Lazy(
                "run-pipeline", "elute.cli.cell_runs:run_pipeline", "Find features, their genes and cells, and a page."
            ),
            Lazy("train", "elute.cli.cell_runs:train", "Its first steps: activations, then dictionaries."),
            Lazy(
                "extract", "elute.cli.cell_runs:extract", "Which genes and cells a saved dictionary's features follow."
            ),
            Lazy("validate", "elute.cli.cell_runs:validate", "Hold features against databases, and name them."),
            Lazy("narrate", "elute.cli.cell_names:narrate", "Have a language model explain features, and score it."),
            Lazy("dashboard", "elute.cli.cell_runs:dashboard", "Write the page about a run's features anew."),
            Lazy("export", "elute.cli.cell_runs:export", "Write the features of each cell into an .h5ad file."),
        ],
        "What follows from a feature or a gene": [
            Lazy("steer", "elute.cli.cell_effects:steer", "Turn a feature up: which genes and later features change."),
            Lazy("perturb", "elute.cli.cell_effects:perturb", "Take a gene away: which features change elsewhere."),
            Lazy("graph", "elute.cli.cells_graph:graph", "What leads to a predicted gene: other genes, by features."),
        ],
        "From cells to rows": [
            Lazy("capture", "elute.cli.cells:capture", "Store what a model computes on cells, a row a gene of a cell."),
            Lazy("embed", "elute.cli.cells:embed", "Write one vector a cell into .obsm, ready for scanpy."),
        ],
        "A small model of your own": [
            Lazy(
                "pretrain", "elute.cli.cells:pretrain", "Train a small model on your cells, and judge it beside less."
            ),
            Lazy("demo", "elute.cli.cells:demo", "Train one on the cells that come with scanpy, and take it apart."),
        ],
        "To try things": [
            Lazy(
                "download-test-data", "elute.cli.cell_runs:download_test_data", "Fetch PBMC 3k, checked by its digest."
            ),
            Lazy(
                "test-pipeline-mock",
                "elute.cli.cell_runs:test_pipeline_mock",
                "Run every stage in seconds: is all there?",
            ),
        ],
    },
    help="Single cells: from an .h5ad file to what a model makes of them.",
)

tissue = LazyGroup(
    "tissue",
    sections={
        "All in one": [
            Lazy("run", "elute.cli.tissue:run", "Do all stages, from tiles to pages about each gene and code."),
        ],
        "Stage by stage": [
            Lazy("embed-export", "elute.cli.tissue:embed_export", "Store what a frozen encoder makes of your tiles."),
            Lazy("train-sae", "elute.cli.tissue:train_sae", "Train a sparse autoencoder on training patients' rows."),
            Lazy("extract-codes", "elute.cli.tissue:extract_codes", "Write the sparse codes of every row."),
            Lazy(
                "train-heads", "elute.cli.tissue:train_heads", "Predict genes from codes, each score beside controls."
            ),
            Lazy("crp-relmax", "elute.cli.tissue:crp_relmax", "Say which codes a gene rests on, and where they are."),
            Lazy("make-reports", "elute.cli.tissue:make_reports", "Write pages about each gene and each code."),
        ],
        "To try things": [
            Lazy("demo", "elute.cli.tissue:demo", "Paint tissue, and see whether what was planted is found."),
        ],
    },
    help="Tissue images with gene counts: which patterns predict a gene, and where they are.",
)

routing = LazyGroup(
    "routing",
    sections={
        "A policy to look into": [
            Lazy("train-policy", "elute.cli.routing:train_policy", "Train a policy that builds tours, and judge it."),
            Lazy("score-policy", "elute.cli.routing:score_policy", "Hold its tours against the shortest ones."),
        ],
        "From one layer to a later one": [
            Lazy("collect-pairs", "elute.cli.routing_pairs:collect_pairs", "Store what two layers make of each node."),
            Lazy("inspect-pairs", "elute.cli.routing_pairs:inspect_pairs", "What a linear map makes of them: the bar."),
            Lazy("train-transcoder", "elute.cli.routing_training:train_transcoder", "Train a sparse map on a pair."),
            Lazy("train-clt", "elute.cli.routing_training:train_clt", "Train one over all layers at once."),
            Lazy("grid", "elute.cli.routing_training:grid", "Train one for each setting of a grid, and rank them."),
        ],
        "What follows from it": [
            Lazy("eval", "elute.cli.routing_cause:evaluate", "What its features are, and how well it does."),
            Lazy("patch", "elute.cli.routing_cause:patch", "Put it in the layer's place: do the tours stay?"),
            Lazy("steer", "elute.cli.routing_cause:steer", "Turn features up or down: how the tours change."),
            Lazy("paths", "elute.cli.routing_cause:paths", "Follow features through layers to the next node."),
            Lazy("graph", "elute.cli.routing_graph:graph", "What leads to one choice: nodes, features, the next node."),
            Lazy("generalise", "elute.cli.routing_cause:generalise", "Hold it against other policies and instances."),
        ],
        "To try things": [
            Lazy("demo", "elute.cli.routing_cause:demo", "All of it on a small policy, in some minutes."),
        ],
    },
    help="Routing policies: how features of one layer cause those of a later one, and the tour.",
)

particles = LazyGroup(
    "particles",
    sections={
        "Judge": [
            Lazy(
                "evaluate-classification",
                "elute.cli.particles:evaluate_classification",
                "Tell particles apart by each source and by their fusion, beside controls.",
            ),
        ],
        "Use": [
            Lazy("fuse", "elute.cli.particles:fuse", "Fuse new particles with a network trained before."),
            Lazy(
                "features", "elute.cli.particles:features", "Find sparse features of embeddings, and what they follow."
            ),
        ],
        "To try things": [
            Lazy("demo", "elute.cli.particles:demo", "Make particles up, and see whether fusion gains what it can."),
        ],
    },
    help="Embeddings of particles from several sources: fused, and judged.",
)

databases = LazyGroup(
    "databases",
    sections={
        "What is there": [
            Lazy("list", "elute.cli.databases:list_", "Which databases are here, in which version; what to type."),
            Lazy("verify", "elute.cli.databases:verify", "Hold every snapshot against its digests."),
            Lazy("unmapped", "elute.cli.databases:unmapped", "The genes of a database that HGNC does not know."),
        ],
        "Bring them here": [
            Lazy("fetch", "elute.cli.databases:fetch", "Fetch databases, and HGNC's table of genes."),
            Lazy("import", "elute.cli.databases:import_", "Keep files that you downloaded, or any .gmt."),
            Lazy("use", "elute.cli.databases:use", "Choose among the versions of a database."),
            Lazy("remove", "elute.cli.databases:remove", "Delete a database from this machine."),
        ],
        "Look things up": [
            Lazy("search", "elute.cli.databases:search", "Find a gene's rows, or terms, in all of them."),
        ],
    },
    help="Ten databases of biology and libraries of gene sets, kept on this machine.",
)

genes = LazyGroup(
    "genes",
    sections={
        "Genes": [
            Lazy("info", "elute.cli.genes:info", "What every database here has on a gene."),
            Lazy("enrich", "elute.cli.genes:enrich", "Which terms of each database a list of genes shares."),
            Lazy("map", "elute.cli.genes:map_", "Name the genes of a file in all ways, and say what was lost."),
        ],
    },
    help="Genes: one in every database, or a list under all their names.",
)

GROUPS = {
    "Start here": [
        Lazy("demo", "elute.cli.general:demo", "See what elute does, on real cells, in some minutes."),
        Lazy("doctor", "elute.cli.general:doctor", "Say which extras, device and keys are usable, and what to type."),
        Lazy("completion", "elute.cli.general:completion", "Print the script that completes commands in a shell."),
    ],
    "If you have single cells (.h5ad)": [
        Lazy("cells", "elute.cli.menu:cells", "Read a model such as Tahoe-x1 on cells, embed them, train a small one."),
    ],
    "If you have tissue images with gene counts": [
        Lazy("tissue", "elute.cli.menu:tissue", "Read an image encoder on tiles, predict genes, and see from what."),
    ],
    "If you have a policy that builds tours": [
        Lazy("routing", "elute.cli.menu:routing", "Train a policy, and see which features of a layer cause its tours."),
    ],
    "If you have embeddings of particles": [
        Lazy("particles", "elute.cli.menu:particles", "Fuse two or more sources, and say honestly what that gains."),
    ],
    "If you have genes": [
        Lazy("genes", "elute.cli.menu:genes", "Look one up in every database, or map a list of identifiers."),
        Lazy("databases", "elute.cli.menu:databases", "Keep ten databases and gene sets on this machine, and search."),
    ],
    "If you have the folder of a run": [
        Lazy("app", "elute.cli.lab:app", "Open the Lab: look at a run in a browser, and work with it."),
        Lazy("report", "elute.cli.paper:report", "Write a few pages about it, for people who run no programs."),
    ],
    "If you have arrays of activations": [
        Lazy("arrays", "elute.cli.menu:arrays", "Import, check, split and measure any array of activations."),
    ],
}
