"""Words and decisions for ``make_signatures.py``: what the reading notes say, in the product's words.

CHANGES and ARMS are the decisions; everything else is wording.
"""

from __future__ import annotations

# (set, gene) -> fields that differ from the proposal; the note says why
CHANGES: dict[tuple[str, str], dict[str, str]] = {
    ("macrophage_senescence", "ARG1"): {
        "votes": "no",
        "note": "up in Table 3, unchanged in section 4.5.2: a gene the review signs twice does not "
        "vote; mouse M2 gene, low in human macrophages",
    },
    ("macrophage_senescence", "TLR5"): {
        "votes": "no",
        "note": "down as a family member (4.5.3) but up in Lian 2020: does not vote",
    },
    ("nk_senescence", "FCGR3A"): {
        "direction": "0",
        "weight": "0",
        "votes": "no",
        "note": "more CD16+ cells is a proportion, not a gain per cell: does not vote",
    },
    ("nk_senescence", "NCAM1"): {
        "direction": "0",
        "weight": "0",
        "votes": "no",
        "evidence_ids": "S3-T3-22;S3-s4_4-02;S3-s4_4-05",
        "literature": "",
        "note": "more CD56dim cells is a proportion; NCAM1 itself is low in CD56dim: does not vote",
    },
    ("core_senescence", "GLB1"): {
        "votes": "no",
        "note": "proxy of SA-beta-gal, high in every lysosome-rich cell: votes in other_senescence",
    },
    ("core_senescence", "PLAUR"): {
        "votes": "no",
        "note": "constitutive in monocytes and neutrophils: votes in other_senescence",
    },
    ("core_senescence", "CDKN2B"): {
        "votes": "no",
        "note": "p15 is listed for T-cell exhaustion (Nga 2024): votes in other_senescence",
    },
    ("core_senescence", "HMGB2"): {
        "votes": "no",
        "note": "a G2M gene: its loss is already the proliferation veto, and G0 is no evidence",
    },
    ("t_discriminating_exhaustion_only", "LAG3"): {"note": " "},
    ("mtorc1_program", "RPTOR"): {
        "votes": "no",
        "literature": "",
        "note": "part of the complex, not one of its targets: does not vote",
    },
    ("mtorc1_program", "SREBF1"): {"literature": "Duvel 2010"},
    ("ros_program", "PRDX5"): {"literature": "Perkins 2015"},
    ("upr_program", "SEL1L"): {"literature": "Walter 2011"},
    ("upr_program", "PDIA4"): {"literature": "Walter 2011"},
    ("conf_interferon", "IFI6"): {"literature": "Schoggins 2011"},
    ("conf_interferon", "OAS1"): {"literature": "Schoggins 2011"},
    ("conf_interferon", "HERC5"): {"literature": "Schoggins 2011"},
    ("lipid_droplet_program", "PLIN2"): {"literature": "Olzmann 2019"},
    ("lipid_droplet_program", "DGAT1"): {"literature": "Olzmann 2019"},
    ("lipid_droplet_program", "DGAT2"): {"literature": "Olzmann 2019"},
    ("lipid_droplet_program", "SOAT1"): {"literature": "Olzmann 2019"},
    ("lipid_droplet_program", "ABCA1"): {"literature": "Liberzon 2015"},
    ("lipid_droplet_program", "SREBF1"): {"literature": "Duvel 2010"},
    ("t_shared_no_vote", "MKI67"): {"note": "proliferation falls in both states"},
    ("t_shared_no_vote", "TOP2A"): {"note": "proliferation falls in both states"},
    ("t_shared_no_vote", "EOMES"): {"note": "TEMRA, age-associated and exhausted T cells"},
    ("t_shared_no_vote", "CD38"): {"note": "activation and terminal exhaustion of T cells"},
    ("b_senescence", "CD27"): {"literature": ""},
    ("nk_senescence", "KLRG1"): {"literature": ""},
    ("neutrophil_senescence", "CXCR4"): {"literature": ""},
}

_TCR = "TCR machinery that falls in the senescence column only"
_TEMRA = "also the ordinary TEMRA or CMV-driven effector cell"
_BOTH = "named for senescence as well: does not vote"
_NFAT_FAMILY = "family shares 0.3; activity is nuclear translocation"
_ACTIVATION = "an activation cytokine: any stimulated effector makes it, so it does not vote"
# arm -> gene -> (direction, weight, votes, literature, note); evidence follows from the signs
ARMS: dict[str, dict[str, tuple[str, float, bool, str, str]]] = {
    # the exhaustion-only set as an axis: a gene that votes in another axis gives up its vote
    # here, its family counts as little as NFAT's, and the dysfunctional programme of Li 2019 joins with half weight,
    # less its members that are shared, of the senescence axis, or activation cytokines
    "t_axis_exhaustion": {
        **dict.fromkeys(("PDCD1", "LAG3", "ENTPD1"), ("+", 1, True, "", "")),
        **dict.fromkeys(("TOX", "LAYN"), ("+", 1, True, "Zheng 2017; Zhang 2018; Khan 2019", "")),
        "CXCL13": ("+", 1, True, "Zheng 2017; Guo 2018; Zhang 2018", "tumour"),
        **dict.fromkeys(("PRDM1", "BATF"), ("+", 0.5, True, "", "")),
        "TNFRSF9": ("+", 0.5, True, "", "4-1BB; also recent activation"),
        "TOX2": ("+", 0.5, True, "Seo 2019", ""),
        **dict.fromkeys(("NFATC1", "NFATC2", "NFATC3"), ("+", 0.1, True, "", _NFAT_FAMILY)),
        **dict.fromkeys(
            (
                "PTMS",
                "FAM3C",
                "AKAP5",
                "CD7",
                "PHLDA1",
                "SNAP47",
                "TNS3",
                "RDH10",
                "DGKH",
                "KIR2DL4",
                "LYST",
                "RAB27A",
                "CSF1",
                "ITGAE",
                "PAG1",
                "TNFRSF1B",
                "GALNT1",
                "GBP2",
                "MYO7A",
            ),
            ("+", 0.5, True, "Li 2019", "dysfunctional programme of melanoma CD8 T cells"),
        ),
        **dict.fromkeys(
            ("NR4A2", "NR4A3"),
            ("+", 0.1, True, "", "also immediate-early: the weight of the NFAT family"),
        ),
        "NR4A1": ("+", 0, False, "", "votes in the stress axis"),
        **dict.fromkeys(("HAVCR2", "TIGIT", "CTLA4"), ("0", 0, False, "", _BOTH)),
    },
    "t_arm_phenotype": {
        "KLRG1": ("+", 1, True, "", _TEMRA),
        "B3GAT1": ("+", 0.5, True, "", "proxy of CD57; with protein the antibody has weight 1"),
        "FCGR3A": ("+", 0.75, True, "", "CD16; check for NK contamination"),
        "KLRK1": ("+", 0.25, True, "", "NKG2D; constitutive in human CD8 T cells"),
        "KLRC1": ("+", 0.25, True, "", "NKG2A; also in late dysfunctional tumour CD8 T cells"),
        "TYROBP": ("+", 0.5, True, "", "DAP12; near-absent in ordinary T cells, shared with NK"),
        "CD27": ("-", 1, True, "", "the cleanest separator: stays up in dysfunctional T cells"),
        "CD28": ("-", 1, True, "", _TEMRA),
        "PTPRC": ("0", 0, False, "", "CD45RA is an isoform: gene-level RNA carries nothing"),
        "HAVCR2": ("0", 0, False, "", "named for exhaustion as well: does not vote"),
        "TIGIT": ("0", 0, False, "", "named for exhaustion as well: does not vote"),
        "CTLA4": ("0", 0, False, "", "named for exhaustion as well: does not vote"),
    },
    "t_arm_arrest": {
        "CDKN2A": ("+", 1, True, "", "p16, shares exons with ARF; its absence is not evidence"),
        "CDKN1A": ("+", 1, True, "", "p21; also activation, interferon and acute DNA damage"),
        "SESN2": ("+", 0.25, True, "Lanna 2017", "also a p53 target"),
        "TP53": ("0", 0, False, "", "mRNA is not activity: does not vote"),
        "ATM": ("0", 0, False, "", "kinase activity: does not vote"),
        "H2AX": ("0", 0, False, "", "gamma-H2AX is a phospho mark: not measurable"),
        "TERT": ("0", 0, False, "", "telomerase is all but undetected in single cells"),
        "CDK2": ("0", 0, False, "", "inhibited as a protein; its mRNA follows proliferation"),
        "CDK4": ("0", 0, False, "", "inhibited as a protein; its mRNA follows proliferation"),
        "CDK6": ("0", 0, False, "", "inhibited as a protein; its mRNA follows proliferation"),
    },
    "t_arm_tcr_loss": {
        "LAT": ("-", 1, True, "", _TCR),
        "LCP2": ("-", 1, True, "", f"SLP-76; {_TCR}"),
        "DLG1": ("-", 0.5, True, "", f"low abundance; {_TCR}"),
        "LCK": ("0", 0, False, "", "down in exhaustion as well: does not vote"),
        "ZAP70": ("0", 0, False, "", "down in exhaustion as well: does not vote"),
    },
    "t_arm_sasp": {
        "IL6": ("+", 1, True, "", "rarely detected in lymphocytes"),
        "CXCL8": ("+", 1, True, "", "rarely detected in lymphocytes; ambient from myeloid cells"),
        "IL1B": ("+", 0.25, True, "", "named for any immune cell; ambient from myeloid cells"),
        "IL10": ("+", 0.25, True, "", "inhibitory part of the secretome; also Treg and Tr1"),
        "TGFB1": ("+", 0.25, True, "", "secreted latent; broadly expressed"),
        "IFNG": ("0", 0, False, "", _ACTIVATION),
        "TNF": ("0", 0, False, "", _ACTIVATION),
        "IL21": ("0", 0, False, "", f"{_ACTIVATION}; Tfh cytokine"),
    },
    # what only naive and central memory cells have: evidence against senescence in the same droplet.
    # TCF7 and SELL count half, for progenitors and memory cells have them as well
    "conf_naive": {
        **dict.fromkeys(
            ("CCR7", "LEF1"),
            ("+", 1, True, "Zheng 2017; Guo 2018; Zhang 2018", "naive and central memory cells"),
        ),
        **dict.fromkeys(
            ("TCF7", "SELL"),
            (
                "+",
                0.5,
                True,
                "Zheng 2017; Guo 2018; Zhang 2018",
                "also memory cells and progenitors",
            ),
        ),
    },
    # the macrophage set in two arms that answer to different things: CD38 and the enzymes to interferon
    # and NF-kB, the secretome to infection
    "macrophage_arm_cd38": {
        "CD38": ("+", 1, True, "", "interferon and NF-kB induce it"),
        "CD40": ("+", 0.5, True, "", "interferon and NF-kB induce it"),
        "PTGS2": ("+", 0.5, True, "", "COX-2; also acute inflammation"),
        "ABCA1": ("+", 0.5, True, "", "also cholesterol load"),
        "AIF1": ("+", 0.25, True, "", "constitutive in macrophages"),
        "MRC1": ("+", 0.25, True, "", "also resident and M2 macrophages"),
        "CXCR1": ("+", 0.25, True, "", ""),
    },
    "macrophage_arm_sasp": {
        **dict.fromkeys(("CCL2", "CCL7", "BMP2"), ("+", 0.5, True, "", "")),
        **dict.fromkeys(("CCL8", "CCL24"), ("+", 0.5, True, "", "also resident macrophages")),
        "IL10": ("+", 0.25, True, "", "also tolerant macrophages"),
    },
    # p53_tis without what votes in other_senescence and without NF-kB targets
    "other_arm_p53": dict.fromkeys(
        (
            *("MDM2", "BAX", "BBC3", "FAS", "TNFRSF10B", "GADD45A", "SESN1", "SESN2", "RRM2B"),
            *("XPC", "ZMAT3", "FDXR", "PHLDA3", "AEN", "CCNG1", "TIGAR", "BTG2", "PLK3"),
            *("TRIAP1", "DDB2", "SPATA18", "TP53INP1"),
        ),
        ("+", 1, True, "Fischer 2017", ""),
    ),
    # most statements about senescent NK cells describe the shift to CD56dim: they hold inside it
    "conf_nk_cd56bright": {
        "NCAM1": ("+", 1, True, "Crinier 2018; Smith 2020", "CD56"),
        **dict.fromkeys(
            ("SELL", "XCL1", "GZMK", "IL7R"), ("+", 1, True, "Crinier 2018; Smith 2020", "")
        ),
        "FCGR3A": ("-", 1, True, "Crinier 2018; Smith 2020", "CD16"),
        **dict.fromkeys(
            ("FGFBP2", "CX3CR1", "PRF1", "S1PR5"),
            ("-", 1, True, "Crinier 2018; Smith 2020", ""),
        ),
    },
    "other_senescence": {
        "CDKN2A": ("+", 1, True, "", "p16, shares exons with ARF"),
        "CDKN1A": ("+", 1, True, "", "p21; read with p53_tis to tell acute DNA damage"),
        "CDKN2B": ("+", 0.5, True, "Fridman 2008", "p15"),
        "LMNB1": ("-", 0.5, True, "Freund 2012", "also falls without proliferation"),
        "HMGB1": ("-", 0.25, True, "Davalos 2013", "leaves the nucleus first, falls later"),
        "GLB1": ("+", 0.25, True, "Lee 2006", "weak proxy of SA-beta-gal activity"),
        "PLAUR": ("+", 0.25, True, "Amor 2020", "uPAR"),
        "GDF15": ("+", 0.25, True, "Saul 2022", "also a p53 and stress target"),
        "TP53": ("0", 0, False, "", "mRNA is not activity: does not vote"),
        "NFKB1": ("0", 0, False, "", "mRNA is not activity: does not vote"),
        "HMGB2": ("0", 0, False, "", "a G2M gene: already the proliferation veto"),
    },
}

# gene (everywhere, or in one set) -> why nothing is read for it in mouse data
_CD16 = "CD16 of mouse lymphocytes is Fcgr3, the ortholog Fcgr4 is myeloid"
NO_MOUSE: dict[tuple[str, str], str] = {
    ("", "B3GAT1"): "CD57 is not a marker there",
    ("", "NCAM1"): "NK cells lack it",
    ("", "HLA-DRA"): "H2-Ea is not expressed in C57BL/6",
    ("", "CXCL8"): "no ortholog",
    ("t_exhaustion", "CXCL13"): "exhausted T cells do not make it",
    ("t_exhaustion_terminal", "CXCL13"): "exhausted T cells do not make it",
    ("t_discriminating_exhaustion_only", "CXCL13"): "exhausted T cells do not make it",
    ("t_axis_exhaustion", "CXCL13"): "exhausted T cells do not make it",
    ("conf_tfh", "CXCL13"): "Tfh cells do not make it",
    ("", "FCGR3A"): _CD16,
}

# gene -> name the reviews use, where it is not the symbol
MARKERS: dict[str, str] = {
    "ABCA1": "ABC1",
    "AIF1": "IBA-1",
    "ARG1": "Arg1",
    "B3GAT1": "CD57",
    "BCL2L1": "BCL-XL",
    "CD274": "PD-L1",
    "CDKN1A": "p21",
    "CDKN2A": "p16",
    "CDKN2B": "p15",
    "CDKN1B": "p27",
    "CREB1": "CREB",
    "CTLA4": "CTLA-4",
    "CXCL8": "IL-8",
    "EIF2AK3": "PERK",
    "ENTPD1": "CD39",
    "ERN1": "IRE1",
    "FCGR3A": "CD16",
    "GLB1": "SA-beta-gal",
    "H2AX": "gamma-H2AX",
    "HAVCR2": "TIM-3",
    "IFNG": "IFN-gamma",
    "IL10": "IL-10",
    "IL1A": "IL-1alpha",
    "IL1B": "IL-1beta",
    "IL2": "IL-2",
    "IL21": "IL-21",
    "IL2RA": "CD25",
    "IL6": "IL-6",
    "ITGAL": "CD11a",
    "ITGAM": "CD11b",
    "ITGAX": "CD11c",
    "KLRC1": "NKG2A",
    "KLRC2": "NKG2C",
    "KLRG1": "KLRG-1",
    "KLRK1": "NKG2D",
    "LAG3": "LAG-3",
    "LCP2": "SLP-76",
    "LILRB2": "ILT4",
    "MAPK1": "ERK2",
    "MAPK3": "ERK1",
    "MMP9": "MMP-9",
    "MRC1": "CD206",
    "MTOR": "mTOR",
    "NCAM1": "CD56",
    "NFATC1": "NFAT family",
    "NFATC2": "NFAT family",
    "NFATC3": "NFAT family",
    "NFKB1": "NF-kB",
    "NOS2": "iNOS",
    "NR4A1": "NR4A family",
    "NR4A2": "NR4A family",
    "NR4A3": "NR4A family",
    "PDCD1": "PD-1",
    "PLA2G4A": "cPLA2alpha",
    "PLAUR": "uPAR",
    "PRDM1": "Blimp-1",
    "PRF1": "perforin",
    "PROM1": "CD133",
    "PTGS2": "COX2",
    "PTPRC": "CD45RA",
    "SELL": "CD62L",
    "TBX21": "T-bet",
    "TCF7": "TCF-1",
    "TERT": "telomerase",
    "TGFB1": "TGF-beta",
    "TNF": "TNF-alpha",
    "TNFRSF8": "CD30",
    "TNFRSF9": "4-1BB",
    "TNFSF8": "CD153",
    "TP53": "p53",
    "TRDV2": "Vdelta2",
    "TYROBP": "DAP12",
    "HLA-DRA": "MHC class II",
    "HLA-DRB1": "MHC class II",
    "HLA-DQA1": "MHC class II",
    "HLA-DQB1": "MHC class II",
    "HLA-DPA1": "MHC class II",
    "HLA-DPB1": "MHC class II",
    "GZMA": "granzymes",
    "GZMB": "granzymes",
    "GZMH": "granzymes",
    "GZMK": "granzymes",
    "GZMM": "granzymes",
    "IFNA1": "IFN-alpha",
    "IFNA2": "IFN-alpha",
    "IL12A": "IL-12",
    "IL12B": "IL-12",
}
MARKERS |= {f"TLR{n}": "Toll-like receptors" for n in (1, 2, 3, 4, 5, 6, 7, 9, 10)}
MARKERS |= {f"PIK3C{x}": "PI3K/AKT" for x in "ABDG"} | {f"AKT{n}": "PI3K/AKT" for n in (1, 2, 3)}

_KINASE = "kinase activity is not in the mRNA"
_PI3K = "pathway activity is phosphorylation"
_NFAT = "activity is nuclear translocation"
_IFNA = "13 near-identical genes, made only after stimulation; no one-to-one mouse gene"
_CDK = "inhibited as a protein; the mRNA follows proliferation"
# gene -> why gene-level RNA is a proxy at most
REASONS: dict[str, str] = {
    "CDKN2A": "p16 and p14ARF share exons, so counts cannot tell them apart; near zero in most cells",
    "B3GAT1": "CD57 is a glycan; this enzyme is low and follows it poorly: use the antibody",
    "TP53": "regulated as a protein; read its targets (p53_tis)",
    "NFKB1": "activity is nuclear translocation; NFKB1 is itself a target of NF-kB",
    "PTPRC": "CD45RA is an isoform; gene-level counts carry nothing: use the antibody",
    "H2AX": "gamma-H2AX is a phosphorylation; the mRNA follows proliferation",
    "TERT": "enzyme activity; the mRNA is all but undetected in single cells",
    "MTOR": "activity is phosphorylation; read mtorc1_program",
    "NCAM1": "CD56dim and bright are antigen densities; the mRNA is a weak proxy",
    "GLB1": "lysosomal enzyme activity at pH 6; the mRNA is a weak proxy",
    "TGFB1": "set by activation of the latent complex; broadly expressed, isoform not stated",
    "FOXO1": "activity is nuclear localisation",
    "CREB1": "activity is phosphorylation; the mRNA is flat",
    "STAT1": "activity is phosphorylation; the mRNA is an interferon target",
    "STAT3": "activity is phosphorylation",
    "MAPK1": _KINASE,
    "MAPK3": _KINASE,
    "ATM": _KINASE,
    "SRC": _KINASE,
    "ERN1": "activity is phosphorylation and XBP1 splicing; read upr_program",
    "EIF2AK3": "activity is phosphorylation; read upr_program",
    "ATF6": "activity is cleavage; read upr_program",
    "BRD4": "a chromatin reader: activity is not in the mRNA",
    "NFATC1": _NFAT,
    "NFATC2": _NFAT,
    "NFATC3": _NFAT,
    "IFNA1": _IFNA,
    "IFNA2": _IFNA,
    "CDK2": _CDK,
    "CDK4": _CDK,
    "CDK6": _CDK,
    "CDKN1B": "p27 is controlled after translation",
    "CCNE1": "part of the proliferation programme, not a marker of its own",
    "CDC25A": "part of the proliferation programme, not a marker of its own",
}
REASONS |= {f"PIK3C{x}": _PI3K for x in "ABDG"} | {f"AKT{n}": _PI3K for n in (1, 2, 3)}

_CONCEPT = "a concept without a marker"
_CAUSE = "a cause of the state, not an expression marker"
_FUNCTION = "a function; no gene named"
_CELLS = "numbers of cells, not a marker of a cell"
_PROLIFERATION = "read as the S and G2M programmes; quiescence looks the same"
_TELOMERE = "telomere length is not in the RNA"
_GLYCOLYSIS = "flux; read glycolysis_program as a proxy"
_OXPHOS = "flux; read oxphos_program as a proxy"
_ROS = "a chemical level; read ros_program as a proxy"
_SASP = "no gene named; read the sasp sets"
_NKLIKE = "no gene named; read nk_like_gain"
_PRESENT = "a function; read antigen_presentation as a proxy"
_METABOLITE = "metabolites are not in the RNA"
_LIPID = "no gene named; read lipid_droplet_program as a proxy"
# statement without a gene -> (marker, why RNA does not show it or how it is read)
STATEMENTS: dict[str, tuple[str, str]] = {
    "S0-Abstract-05": ("therapy-induced senescence", _SASP),
    "S0-Keyfindings-02": ("therapy-induced senescence", _SASP),
    "S0-Keyfindings-03": ("senolytics", _CONCEPT),
    "S1-MessagefromtheGuestEditor-01": ("cell-cycle arrest", _PROLIFERATION),
    "S1-MessagefromtheGuestEditor-02": ("SASP", _SASP),
    "S2-Abstract-01": ("loss of function", _CONCEPT),
    "S3-T1-01": ("chronic antigen", _CAUSE),
    "S3-T1-02": ("repetitive stimulation", _CAUSE),
    "S3-T1-03": ("proliferation", f"{_PROLIFERATION}; down in both states"),
    "S3-T1-38": ("DNA methylation programme", "DNA methylation is not in the RNA"),
    "S3-T1-39": ("SAHF", "heterochromatin foci are chromatin structure, not in the RNA"),
    "S3-T1-40": ("glycolysis", _GLYCOLYSIS),
    "S3-T1-41": ("glycolysis", _GLYCOLYSIS),
    "S3-T1-42": ("cytotoxicity", f"{_FUNCTION}; down in both states"),
    "S3-T2-01": ("proliferation and telomere loss", _TELOMERE),
    "S3-T2-02": ("SASP", _SASP),
    "S3-T2-06": ("NK-like functions", _NKLIKE),
    "S3-T2-07": ("antigen-independent cytotoxicity", f"{_NKLIKE}; contradicts Tables 1 and 3"),
    "S3-T2-08": ("anti-tumour immunity in aged hosts", _FUNCTION),
    "S3-T3-14": ("glycolysis", _GLYCOLYSIS),
    "S3-T3-15": ("proliferation", _PROLIFERATION),
    "S3-T3-20": ("ROS", _ROS),
    "S3-T3-21": ("proliferation", _PROLIFERATION),
    "S3-T3-26": ("cytotoxicity", _FUNCTION),
    "S3-T3-44": ("OXPHOS", _OXPHOS),
    "S3-T3-45": ("phagocytosis and antigen presentation", _PRESENT),
    "S3-T3-51": ("NETs", "NET formation is a function; granule genes mark maturation, not NETs"),
    "S3-T3-52": ("glycolysis", _GLYCOLYSIS),
    "S3-T3-53": ("ROS", _ROS),
    "S3-T3-54": ("chemotaxis and phagocytosis", _FUNCTION),
    "S3-T4-23": ("quercetin on the SASP", "components are named in section 6"),
    "S3-s2-03": ("NK-like cytotoxicity", _NKLIKE),
    "S3-s2-04": ("thymic output", _CELLS),
    "S3-s2-05": ("inflammaging", _CONCEPT),
    "S3-s2-06": (
        "exhaustion",
        "counted here as a cause of immunosenescence, set apart in section 4",
    ),
    "S3-s3_1-13": ("cytotoxicity", _FUNCTION),
    "S3-s3_2-03": ("DNA damage", "read ddr_program as a proxy"),
    "S3-s3_2-04": ("ROS", _ROS),
    "S3-s3_2-05": ("8-oxoguanine", "a DNA lesion, not in the RNA"),
    "S3-s3_2-06": ("ROS", _ROS),
    "S3-s3_2-07": ("telomere length", _TELOMERE),
    "S3-s4-05": ("arrest and apoptosis resistance", "no gene named; BCL2 family would be a proxy"),
    "S3-s4-06": ("SASP", _SASP),
    "S3-s4-07": ("tumour promotion", _SASP),
    "S3-s4-08": ("tumour inhibition", _NKLIKE),
    "S3-s4_1-01": ("senescence induced by Treg", "no marker named"),
    "S3-s4_1-02": ("senescence induced by Treg", "no marker named"),
    "S3-s4_1-03": ("glycolysis of Treg", _GLYCOLYSIS),
    "S3-s4_1-08": ("cAMP through adenosine", f"{_METABOLITE}; the receptor is not named"),
    "S3-Figure1legend-05": ("tumour metabolites", _METABOLITE),
    "S3-Figure1legend-06": ("glucose", f"{_GLYCOLYSIS}; at odds with Tables 1 and 3"),
    "S3-s4_2-01": ("naive T cells", _CELLS),
    "S3-s4_2-14": ("antigen-independent cytotoxicity", _NKLIKE),
    "S3-s4_2-15": (
        "cytotoxic granules and NK receptors",
        "genes not named; the same section also says perforin and granzymes fall: contested",
    ),
    "S3-s4_2-33": ("cells harmed by the SASP", _FUNCTION),
    "S3-s4_2-34": ("Treg and MDSC expansion", _CELLS),
    "S3-s4_3-01": ("mature B cells", _CELLS),
    "S3-s4_3-06": ("specific antibody production", _FUNCTION),
    "S3-s4_4-06": ("cytotoxicity", _FUNCTION),
    "S3-s4_4-07": ("activating receptors", "not named; Lian 2020 gives NKp30, NKp46, DNAM-1"),
    "S3-s4_5_1-01": ("glycolysis", _GLYCOLYSIS),
    "S3-s4_5_1-02": ("OXPHOS", _OXPHOS),
    "S3-s4_5_1-03": ("phagocytosis and antigen presentation", _PRESENT),
    "S3-s4_5_2-03": ("M2-like macrophages", _CELLS),
    "S3-s4_5_4-01": ("inflammatory cytokines", f"{_SASP}; Moss 2023 reports the opposite"),
    "S3-s4_6_1-03": ("phagocytosis", _FUNCTION),
    "S3-s4_6_1-04": ("chemotaxis", _FUNCTION),
    "S3-s4_6_1-05": ("apoptosis", f"{_FUNCTION}; senescence is defined by resistance to it (4)"),
    "S3-s4_6_1-06": ("TLR signalling", "member and direction not stated; TLR1 down in Qian 2014"),
    "S3-s4_6_2-02": ("ROS", _ROS),
    "S3-s4_6_2-03": ("N2 neutrophils", _CELLS),
    "S3-s4_7-01": ("antigen presentation", _PRESENT),
    "S3-s4_7-02": ("mitochondrial function", _OXPHOS),
    "S3-s4_7-03": ("response to chemokines", "receptor not named; CCR7 is the textbook receptor"),
    "S3-s4_7-08": ("contact with NK cells", _FUNCTION),
    "S3-s5_3-02": ("TRM differentiation", "no gene named; read conf_trm as a proxy"),
    "S3-s5_5-08": ("lipid droplets", _LIPID),
    "S3-s5_5-10": ("cholesterol synthesis and transport", f"direction not stated; {_LIPID}"),
    "S3-s6-02": ("lipid accumulation", _LIPID),
    "X-039": ("SAHF", "chromatin structure, not in the RNA; printed down there, up in the review"),
    "X-040": ("mitochondrial biogenesis", _OXPHOS),
    "X-041": ("ROS", _ROS),
    "X-044": ("stimulation, DNA damage, stress", _CAUSE),
    "X-093": ("cytokines and phagocytosis", f"{_FUNCTION}; contradicts section 4.5.4"),
    "X-095": ("glucose uptake", f"{_GLYCOLYSIS}; contradicts Table 3"),
    "X-096": ("NETs", "a function; contradicts Table 3"),
}

_SUBSET = "the gene names a subset whose share changes; it says nothing of a cell's own level"
_MOUSE_NK = "defines a mouse NK subset that shrinks with age, the opposite of human"
_LABEL = "names a population, not a state"
# statements in which the gene is a label (of a subset, a model, a response): no direction to score
LABELS: dict[str, str] = {
    "S3-T3-22": _SUBSET,
    "S3-T3-23": _SUBSET,
    "S3-s4_4-02": _SUBSET,
    "S3-s4_4-05": _SUBSET,
    "S3-s4_4-03": "CD56bright cells respond less to IL-2; the receptor genes are not named",
    "S3-s4_4-04": "response to IL-2, not its expression; the receptor genes are not named",
    "S3-s4_4-08": _MOUSE_NK,
    "S3-s4_4-09": _MOUSE_NK,
    "S3-s3_2-14": _LABEL,
    "S3-T4-18": _LABEL,
    "S3-s5_2-02": _LABEL,
    "S3-s5_2-03": _LABEL,
    "S3-s5_3-03": "genotype of a mouse host, not a marker",
}

_CUT = "table cell incomplete in the copy read"
# parts of the reading notes -> the product's words (empty: dropped)
PARTS: dict[str, str] = {
    'cell truncated in the seed (trailing "': _CUT,
    '"): the seed row continues in the paper': "",
    "Ref column truncated in the seed": "",
    "Ref column truncated": "",
    "seed names the pathway": "the pathway is named, its members are added",
    "seed says Toll-like receptors (family), member not named": "family named, members added",
    "seed says granzymes (family)": "family named, members added",
    "seed says MHC class II molecules (family)": "family named, members added",
    "seed names the NFAT family": "family named, members added",
    "families NFAT and Nr4a expanded to their T-cell members": "",
    "CD38 is listed twice in the seed cell": "CD38 is listed twice and counted once",
    "cell truncated: NO arrow in the seed": f"{_CUT}: no arrow, up inferred from the list",
    "direction up is inferred (SASP list": "",
    "likely the p16-high macrophages of mouse Kras lung tumours, Haston 2023 / Prieto 2023 "
    "- full texts not seen)": "",
    "conflicts with seed 4.2 (Bach2 down in aged naive T)": "",
    "BACH2 belongs to the progenitor state": "",
    "seed calls it co-stimulatory": "grouped with co-stimulation in the review",
    "NKG2A is DOWN in aged NK but UP in senescent T (seed Table 3): cell-type restricted": (
        "NKG2A falls in aged NK cells and rises in senescent T cells"
    ),
    "completion also supported by seed Table 1": "agrees with Table 1 of the review",
    "probable completion: the seed Table 3 T-cell row starts with the same list": (
        "probably completes a table cell of the review"
    ),
    "every other source incl. the seed says up: treated as a typesetting error": (
        "printed down there, up in every other source: read as a misprint"
    ),
    "the source prints a DOWN arrow": "",
    'T-cell cytokine cell truncated after "IL-6, IL-8," - no arrow in the seed': _CUT,
    "seed does not give the isoform": "",
    "targets NOT named in the seed": "drug named, target from pharmacology",
    "navitoclax (ABT-263) inhibits BCL-2/BCL-XL/BCL-W (pharmacology)": "",
    "from mouse Kras lung model (seed reference)": "mouse lung tumour model",
    'TLR5 UP contradicts "reduced expression of TLRs" (seed 4.5.3)': (
        "section 4.5.3 has the family down: contested for TLR5"
    ),
    "seed 4.2 names the same pair": "",
    "seed spells ABC1 (previous symbol of ABCA1)": "ABC1 is read as ABCA1, its previous symbol",
    "terminal differentiation AND replicative senescence: the seed does not separate TEMRA from "
    "senescent": "TEMRA and senescent cells are not told apart here",
    "the seed does not state the cell carrying it (B cells implied)": "the cell is not stated",
    "contested - the macrophage-ageing meta-analysis (Moss 2023, seed ref 97 topic) reports "
    "reduced cytokine secretion": "",
    "seed says myeloid cells": "myeloid cells",
    "seed says dysregulation": "called dysregulated",
    "does NOT conform to M2 - CONTRADICTS Table 3 (Arg1 up, CD206 up): contested, low weight": (
        "not M2-like, against Table 3: contested"
    ),
    "aged macrophage phenotype does NOT conform to M1: must not vote": "not M1-like: does not vote",
    "CONTESTED: opposite of the NK-like gain axis": (
        "contested: the same section has cytotoxic granules up"
    ),
    "cytotoxicity is down in both Table 1 columns -> must not vote": "does not vote",
    "CD56dim CD16+ subset expands: NCAM1 density LOW, FCGR3A up (a subset shift, not a per-cell "
    "change)": _SUBSET,
    "ageing CD8 T look EXHAUSTED, not CD57/KLRG1-senescent: age alone is no label for the "
    "senescence arm": "ageing CD8 T cells look exhausted here: age is no label of senescence",
    "p15/p27 as EXHAUSTION arrest genes: do not put CDKN2B/CDKN1B in the T senescence arm": (
        "an arrest gene of exhaustion: kept out of the T-cell senescence sets"
    ),
    "contested: PMC5719137 Fig 1 (replicative senescent T cells) states HIGH perforin/granzymes "
    "in replicative senescent T cells": "contested: high in PMC5719137 Figure 1",
    "MOUSE only: mature CD11b+CD27- NK cells are reduced in aged tissue (opposite to human) - "
    "population definition": _MOUSE_NK,
    "mouse H2-Ea is a null allele in C57BL/6": "",
    "no mouse ortholog": "",
    "mouse CD16 protein is Fcgr3 whereas the FCGR3A ortholog is Fcgr4": "",
    "in mouse not a validated T/NK senescence marker": "",
    "mouse NK cells lack NCAM1 (CD11b/CD27 staging instead)": "",
    "reduced BY the drug, i.e. up in senescence": "lowered by the drug, so up in senescence",
    "the TEMRA-like population is the working definition of T-cell senescence here": (
        "the working definition here is TEMRA-like"
    ),
    "Rockefeller UP review Table 1 (rupress.org view-large 9581031; chronically stimulated CD4 vs "
    "CD8 T; title not seen)": "Rockefeller University Press review, Table 1 (view-large 9581031)",
    "Nga, Nguyen, Yi 2024 Diabetes Metab J 48:864 (e-dmj 2870) table, first rows only (stored "
    "excerpt cut)": "Nga 2024 Diabetes Metab J 48:864, first rows of the table",
    "Pereira 2020 Nat Immunol 21:684 (PMID 32231301) abstract; likely seed ref 16 or 59": (
        "Pereira 2020 Nat Immunol 21:684 (PMID 32231301), abstract"
    ),
}
# already said by the reason or the marker of the row
DROPPED_PARTS = frozenset(
    {
        "p16INK4a shares gene-level CDKN2A counts with p14ARF (mouse p19Arf)",
        "low abundance and dropout-prone in immune cells",
        "CD57 is a glycan (HNK-1) epitope",
        "B3GAT1 mRNA encodes the glucuronyltransferase, low and poorly correlated",
        "use ADT",
        "PI3K/AKT activity is phosphorylation",
        "p53 is regulated by protein stabilisation/mutation",
        "mRNA is not activity - read targets (p53_tis)",
        "mRNA",
        "phospho-CREB",
        "mRNA flat",
        "NFAT activity is nuclear translocation",
        "CD56dim/bright is antigen density",
        "NCAM1 mRNA is a weak proxy",
        "mRNA not informative",
        "phospho-STAT1",
        "phospho-STAT3",
        "STAT1 mRNA is an interferon target",
        "SA-beta-gal is lysosomal enzyme activity at pH 6",
        "GLB1 mRNA is a weak proxy",
        "mTOR activity is phosphorylation",
        "read mTORC1 target programme",
        "kinase activity",
        "gamma-H2AX is phospho-Ser139 (post-translational)",
        "H2AX mRNA follows proliferation, not damage",
        "telomerase activity",
        "TERT mRNA essentially undetected in scRNA-seq",
        "TGF-beta activity is set by latent-complex activation",
        "TGFB1 mRNA is broadly expressed in leukocytes",
        "NF-kB activity is nuclear translocation",
        "NFKB1 mRNA is itself an NF-kB target",
        "CD45RA is an exon-4 isoform of PTPRC",
        "not resolvable with gene-level 3prime counts - protein (ADT) or isoform-aware reads only",
        "chromatin reader activity",
        "kinase activity inhibited by p21",
        "kinase activity inhibited by p16",
        "FOXO1 activity is nuclear localisation",
        "IFN-alpha is a 13-gene multi-mapping family, expressed only after stimulation",
        "no 1:1 orthology",
        "IRE1a activation is phosphorylation/XBP1 splicing",
        "PERK activation is phosphorylation",
        "ATF6a activation is cleavage",
        "p27 is controlled post-translationally",
        "ERK1 phosphorylation",
        "ERK2 phosphorylation",
        "CD11a", "CD11b", "CD11c", "CD16", "CD25", "CD30", "CD30 receptor", "CD153", "CD206",
        "2B4", "IL-8", "NKG2A", "NKG2D", "ILT4", "IBA-1", "COX2", "SLP-76", "Blimp-1", "T-bet",
        "TCF-1", "uPAR", "iNOS", "p15", "BCL-XL", "BCL-W", "cPLA2alpha", "definition", "concept",
        "p21CIP1/WAF1 mRNA", "explicitly no significant impact: must not vote", "same cell",
        "arrow at the end of the list", "TCR signalling machinery row", "same Table 3 T-cell cell",
        "probable", "kinase activity not measured",
        "in section 4.5.3 a TLR family member",
        "in section 5.2 the named target",
        "mass-cytometry/transcriptome panel",
    }
)  # fmt: skip
PARTS |= {
    "dictates pro-tumorigenic SASP in therapy-induced senescence": "p53 shapes the SASP here",
    "loss of function -> senescence evasion, therapy resistance": "",
    "a genotype, not an expression call": "a loss-of-function genotype, not an expression call",
    "NCBI Gene 7157": "",
    "NCBI Gene 4790": "",
    "population label (IgM memory B)": "IgM memory B cells stay: a share of cells",
    "composition": "",
    "must not vote": "does not vote",
    "transcriptional profile row": "",
    "Table 1 column: senescence": "senescence column",
    "aged naive CD8 and CD4 T cells": "in aged naive T cells",
    "these genes are naive/memory identity: falls in every effector cell, exhausted included": (
        "naive identity: every effector cell loses it"
    ),
    "protein secretion vs mRNA differ": "",
    "a TRANSFERRED glycan/protein is invisible to the recipient RNA": (
        "a transferred protein is not in the RNA of the cell that received it"
    ),
    "marks naive AND TEMRA cells": "marks naive and TEMRA cells",
    "checkpoint drugs (introduction), not a senescence statement": "checkpoint drugs, introduction",
    "rapamycin -> mTOR": "rapamycin",
    "CDKN2A/CDKN1A are the readouts, CD3E the population label": "",
    "NK receptors": "",
    "ABC surface markers": "",
    "tumour-promoting SASP axis": "tumour-promoting side",
    "direction taken from Table 1": "direction from Table 1",
    "no mouse ortholog (Pirb is the functional counterpart)": "mouse: Pirb is the counterpart",
    "tumour/myeloid inducer": "",
    "cAMP, adenosine and lactate are metabolites (not measurable)": "",
    "no 1:1 mouse ortholog": "",
    "inducer made by tumour cells": "made by tumour cells, induces senescence in T cells",
    "CDK family named without members": "family named, members added",
    "p16->CDK4/6, p21->CDK2 (textbook expansion)": "",
    "SA-beta-gal is also lysosome-rich macrophage biology (false positive in macrophages)": (
        "macrophages are rich in lysosomes anyway"
    ),
    "PDCD1 is an exhaustion-only marker in T cells - cell-type restricted": (
        "in T cells it marks exhaustion only"
    ),
    "also plasma cells, activated/terminally exhausted T cells: cell-type restricted use": (
        "also plasma cells and activated T cells"
    ),
    "CD133 on tumour stem cells": "",
}
# parts that the notes give to every gene of a statement, but that concern one of them
ONLY_FOR: dict[str, str] = {
    "Arg1 contradicted by section 4.5.2": "ARG1",
    "CD38 is listed twice and counted once": "CD38",
    "TCF1 down on average": "TCF7",
    "TCF7+ is the progenitor subset": "TCF7",
    "section 4.5.3 has the family down: contested for TLR5": "TLR5",
}

# target cells of Table 4 -> lineages in which called and other cells are compared
TARGET_LINEAGES: dict[str, str] = {
    "any immune": "T B NK mono_mac neutrophil DC",
    "any immune (myeloid)": "T B NK mono_mac neutrophil DC",
    "any": "T B NK mono_mac neutrophil DC other",
    "T": "T",
    "T (adipose)": "T",
    "CD8 T": "T",
    "CD4 T (Treg), tumour": "T other",
    "tumour, myeloid -> T": "mono_mac other",
    "tumour, T": "T other",
    "T / tumour": "T other",
    "tumour": "other",
    "tumour stem cell": "other",
    "macrophage": "mono_mac",
}

PARTS["explicitly not significant: must not vote"] = "stated as unchanged: does not vote"
PARTS["CXCR5, GZMK, XCL1 are progenitor-like members"] = ""

_PROGRAMME = "direction stated for the programme, genes added"
# notes of the proposal -> the product's words
NOTES: dict[str, str] = {
    "truncated cell": "",
    "from text 4.2, fits the truncated Table 2 cell": "from section 4.2",
    "contested": "contested",
    'Table 2 cell "Acquisition of innate NK-like functions:" truncated; receptors from 4.2/Table 3. '
    "NKG2A is inhibitory: it counts as NK-like identity, not as killing": (
        "from Table 3 and section 4.2; NKG2A is inhibitory: identity, not killing"
    ),
    "SHARED with exhaustion in the seed: must not vote": (
        "named for exhaustion as well: does not vote"
    ),
    "SHARED with senescence in the seed: must not vote": (
        "named for senescence as well: does not vote"
    ),
    "SHARED (down in both): must not vote": "down in both states: does not vote",
    "SHARED with senescence: never in the exhaustion-vs-senescence vote": (
        "named for senescence as well: used only to stage cells already called exhausted"
    ),
    "contested direction: must not vote": "the review has it up and down: does not vote",
    "weight 0 in T cells": "p15",
    "arrow missing in the seed cell; direction inferred": "no arrow in the table cell, up inferred",
    "exhaustion only in the seed; PD-1 also Tfh, and NK senescence": "PD-1 also marks Tfh cells",
    "exhaustion only in the SEED, but constitutive on TEMRA/NK-like (CD244, CD160) or naive/Tfh "
    "(BTLA): proposed weight 0 in the vote": (
        "constitutive on TEMRA and NK-like cells (CD244, CD160) or naive and Tfh cells (BTLA): "
        "does not vote"
    ),
    "seed lists TCF7 only as stemness loss (down)": (
        "the review has it only as lost stemness; up in progenitors by the literature"
    ),
    "B, neutrophil, CD8 T up (seed, no genes named); response programme, not ROS level": (
        f"{_PROGRAMME}: up in B, neutrophils, CD8 T; a response, not the level of ROS"
    ),
    "NK up (seed names mTOR); DDIT4 is an INHIBITOR/target": f"{_PROGRAMME}: mTOR up in NK",
    "T senescence up / T exhaustion down / macrophage down / neutrophil up (seed, no genes named)": (
        f"{_PROGRAMME}: up in T senescence and neutrophils, down in T exhaustion and macrophages"
    ),
    "macrophage and DC down (seed, no genes named)": f"{_PROGRAMME}: down in macrophages and DC",
    "seed names ATM and DDR; mRNA is weak readout and S-phase linked": (
        "weak readout, linked to S phase; the review names ATM"
    ),
    "seed names ERN1, EIF2AK3, ATF6; rest added": "the review names ERN1, EIF2AK3, ATF6",
    "seed names PLA2G4A, FASN, cholesterol, lipid droplets": (
        "the review names PLA2G4A and FASN, and droplets and cholesterol without genes"
    ),
    'contested against "reducing perforin and granzymes"': (
        "granules up and perforin down in the same section: contested"
    ),
    "tissue-derived in the seed: does not vote": "made by the aged tissue: does not vote",
    "tissue-derived": "made by the aged tissue: does not vote",
    "deliberately WITHOUT KLRG1, FCGR3A, B3GAT1 so that it can be regressed from t_senescence": "",
    "ageing T cells that look exhausted; members beyond GZMK/PDCD1/TOX from memory of the paper: "
    "verify": "members beyond GZMK, PDCD1 and TOX not checked against the paper",
    "ADT CD57 weight 1": "proxy of CD57; with protein the antibody has weight 1",
    "CD57 proxy; ADT CD57 weight 1": "proxy of CD57; with protein the antibody has weight 1",
    "CD57 proxy; ADT weight 1": "proxy of CD57; with protein the antibody has weight 1",
    "human only": "",
    "no mouse gene": "",
    "mouse; contradicted by 4.5.2": "",
    "lysosome-rich: no vote": "lysosome-rich cells: does not vote",
    "does not conform to M1: no vote": "not M1-like in the review: does not vote",
    "mRNA is not activity: no vote": "mRNA is not activity: does not vote",
    "activity; see nfkb arm": "activity: does not vote",
    "explicitly unchanged: no vote": "stated as unchanged: does not vote",
    "circadian aged-neutrophil marker": "",
    "confounder, no vote": "marks circadian ageing of neutrophils, not senescence: does not vote",
    "optional": "does not vote",
    "CD45RA isoform: ADT only": "CD45RA is an isoform: gene-level RNA carries nothing",
    "not measurable": "not measurable in RNA: does not vote",
    "4.2": "section 4.2",
    "Table 2/3/4.2": "Tables 2 and 3, section 4.2",
    "named three times; also SASP/IFN-induced": "also interferon-induced",
    "DAP12 pairing is what matters (Pereira 2020)": "it is its pairing with DAP12 that matters",
    "phase II with rituximab in CLL": "",
    "direction ACTIVATE - inverse of the other targets": "activated, unlike the other targets",
    "no mouse ortholog; Pirb functional counterpart": "mouse: Pirb is the counterpart",
    "pathway expanded to catalytic/kinase members; PIK3CD/PIK3CG are the leukocyte isoforms": (
        "the pathway is named, its members are added; leukocytes use PIK3CD and PIK3CG"
    ),
    "also cholesterol synthesis and LD formation (no gene named)": (
        "also cholesterol synthesis and lipid droplets, without genes"
    ),
    "aged mouse CD8: cytotoxic granules up post activation (genes not named)": (
        "aged mouse CD8 T cells; genes not named"
    ),
    "tumour; CXCL13 human only in T cells": "tumour",
    "strong separator: CD27 stays UP in dysfunctional TIL (Li 2019)": (
        "the cleanest separator: stays up in dysfunctional T cells (Li 2019)"
    ),
    "mRNA is not activity: carried, does not vote": "mRNA is not activity: does not vote",
    "DAP12: near-absent in ordinary T cells -> most specific RNA marker; NK doublets/contamination "
    "share it": "DAP12: near-absent in ordinary T cells; NK doublets share it",
    "T-cell SASP only (sasp_t)": "activation cytokine of T cells: does not vote here",
    "not Treg": "also Treg",
    "phospho mark: not measurable, does not vote": "a phospho mark: not measurable in RNA",
    "also falls with non-proliferation: interpret against the cell-cycle score": (
        "also falls at rest: read beside the proliferation axes"
    ),
    "drop when the dissociation score is high": "immediate-early: rises with dissociation as well",
    "inhibitory": "an inhibitory receptor: identity, not killing",
    "as above": "",
}

# source line of the proposal -> keys of references.tsv
LITERATURE: dict[str, str] = {
    "added: Aird 2016 J Cell Biol; HMGB2 is also a G2M gene": "Aird 2016",
    "added: Amor 2020 Nature 583:127 (uPAR on senescent cells; target in seed 5.1)": "Amor 2020",
    "added: Carmona 2020 stemness set": "Carmona 2020",
    "added: Charles 2011 Blood; Maul 2021": "Charles 2011; Maul 2021",
    "added: Coppe 2010 Annu Rev Pathol; SenMayo, Saul 2022": "Coppe 2010; Saul 2022",
    "added: DN definition": "",
    "added: DNA damage response (Reactome)": "Reactome R-HSA-73894",
    "added: Fischer 2017 Oncogene 36:3943 (high-confidence p53 targets)": "Fischer 2017",
    "added: Freund 2012 Mol Biol Cell 23:2066 (lamin B1 loss)": "Freund 2012",
    "added: Fridman & Tainsky 2008 (FRIDMAN_SENESCENCE_UP); but p15 is listed as an EXHAUSTION "
    "arrest gene in T cells (Nga 2024)": "Fridman 2008",
    "added: HALLMARK_MTORC1_SIGNALING members": "Liberzon 2015",
    "added: Hao 2011 Blood (CD23- ABC)": "Hao 2011",
    "added: Im 2016; Miller 2019; Winkler & Bengsch 2020": "Im 2016; Miller 2019; Winkler 2020",
    "added: Im 2016; Siddiqui 2019; Miller 2019; Winkler & Bengsch 2020": (
        "Im 2016; Siddiqui 2019; Miller 2019; Winkler 2020"
    ),
    "added: as above": "Khan 2019; Alfei 2019; Winkler 2020",
    "added: Jenks 2018 DN2": "Jenks 2018",
    "added: Jenks 2018 Immunity 49:725; Maul 2021 Front Immunol 12:649458": "Jenks 2018; Maul 2021",
    "added: Khan 2019 Nature 571:211; Alfei 2019; Scott 2019": "Khan 2019; Alfei 2019; Scott 2019",
    "added: Kumar 2017": "Kumar 2017",
    "added: Kumar 2017 Cell Rep; Zhang 2018": "Kumar 2017; Zhang 2018",
    "added: Li 2019 Cell 176:775 dysfunctional genes": "Li 2019",
    "added: Li 2019 dysfunctional genes": "Li 2019",
    "added: Lian 2020 Table 1": "Lian 2020",
    'added: Lian 2020 Table 1 (completes "activating receptors" of seed 4.4)': "Lian 2020",
    "added: MHC-II pathway (Reactome)": "Reactome R-HSA-2132295",
    "added: Michel 2016 Front Immunol": "Michel 2016",
    "added: Miller 2019": "Miller 2019",
    "added: Miller 2019 (TIM-3 splits progenitor/terminal); inside-exhaustion use only": (
        "Miller 2019"
    ),
    "added: Mogilenko 2021": "Mogilenko 2021",
    "added: Mogilenko 2021 Immunity (Taa: GZMK+ PD1+ TOX+)": "Mogilenko 2021",
    "added: NF-kB arm of TIS SASP; HALLMARK_TNFA_SIGNALING_VIA_NFKB": "Liberzon 2015",
    "added: NK identity": "Dominguez Conde 2022",
    "added: NK receptor identity; Pereira 2020; Michel 2016": "Pereira 2020; Michel 2016",
    "added: NK-like T identity": "Correia 2018",
    "added: Pereira 2020": "Pereira 2020",
    "added: Pereira 2020 Nat Immunol": "Pereira 2020",
    "added: Pereira 2020 Nat Immunol; Lanna 2017 Nat Immunol 18:354 (sestrins)": (
        "Pereira 2020; Lanna 2017"
    ),
    "added: Qian 2014 Aging": "Qian 2014",
    "added: Sachinidis 2020 (CD21-)": "Sachinidis 2020",
    "added: Schlums 2015; Lee 2015": "Schlums 2015; Lee 2015",
    "added: Schlums 2015; Lee 2015 Immunity; Ruckert 2022": "Schlums 2015; Lee 2015; Ruckert 2022",
    "added: SenMayo / Fridman": "Saul 2022; Fridman 2008",
    "added: SenMayo, Saul 2022": "Saul 2022",
    "added: Seo 2019": "Seo 2019",
    "added: Seo 2019 PNAS": "Seo 2019",
    "added: T identity": "Dominguez Conde 2022",
    "added: TEMRA/effector, Taa and exhaustion": "",
    "added: Tfh identity; PDCD1/CXCL13/BTLA are Tfh genes": "Crotty 2014",
    "added: Tirosh 2016 Science (via SignatuR)": "Tirosh 2016",
    "added: Treg identity; FOXP3, CTLA4, TIGIT, ENTPD1, TNFRSF9 are Treg genes: label Treg BEFORE "
    "the exhaustion/senescence vote": "Zheng 2017; Zhang 2018",
    "added: UPR targets (HALLMARK_UNFOLDED_PROTEIN_RESPONSE)": "Liberzon 2015",
    "added: Zhang 2018 Nature 564:268 CD8_Temra_Teff; Zheng 2021": "Zhang 2018; Zheng 2021",
    "added: Zheng 2017, Zhang 2018, Khan 2019": "Zheng 2017; Zhang 2018; Khan 2019",
    "added: Zheng 2017; Zhang 2018": "Zheng 2017; Zhang 2018",
    "added: Zheng C 2017 Cell; Guo 2018; Zhang 2018 (CD8_Tex)": "Zheng 2017; Guo 2018; Zhang 2018",
    "added: Zheng L 2021 Science 374:abe6474; Siddiqui 2019": "Zheng 2021; Siddiqui 2019",
    "added: Zheng L 2021; Zhang 2018": "Zheng 2021; Zhang 2018",
    "added: acute TCR response; Carmona 2020, Szabo 2019": "Carmona 2020; Szabo 2019",
    "added: ambient": "Young 2020",
    "added: ambient myeloid RNA carries CXCL8, IL1B, TNF into lymphocyte barcodes": "Young 2020",
    "added: antioxidant response (HALLMARK_ROS / NRF2 targets)": "Liberzon 2015",
    "added: circadian aged-neutrophil marker (CXCR4hi CD62Llo): neutrophil AGEING is not "
    "senescence": "",
    "added: cytotoxic granules named without genes in seed 4.2": "Yu 2026",
    "added: glycolytic enzymes (Reactome R-HSA-70171)": "Reactome R-HSA-70171",
    "added: mature NK marker; seed names it for T only": "",
    "added: proliferation down in both columns (seed, no gene named)": "",
    "added: respiratory-chain nuclear subunits (HALLMARK_OXIDATIVE_PHOSPHORYLATION)": (
        "Liberzon 2015"
    ),
    "added: seed 4.1 Treg-induced DC senescence without markers; generic p16/p21 (any immune, "
    "3.1)": "Yu 2026",
    'added: seed 4.7 "weakened response to chemokines", receptor not named': "Yu 2026",
    "added: seed 4.7 antigen presentation down, genes not named; MHC-II genes from 4.5.3 "
    "macrophage statement": "Yu 2026",
    "added: seed: CD56dim expands (density), encoded as NCAM1 low": "",
    "added: terminal exhaustion; macrophage senescence in the seed": "",
    "added: terminal marker": "Miller 2019",
    "added: terminal marker (shared with senescence, used only inside exhaustion)": "Miller 2019",
    "added: textbook lipid genes": "Olzmann 2019; Liberzon 2015",
    "added: type I IFN core (Mostafavi 2016; HALLMARK_INTERFERON_ALPHA)": (
        "Mostafavi 2016; Liberzon 2015"
    ),
    "added: van den Brink 2017 Nat Methods; O Flanagan 2019 Genome Biol; Denisenko 2020": (
        "van den Brink 2017; O'Flanagan 2019; Denisenko 2020"
    ),
}
