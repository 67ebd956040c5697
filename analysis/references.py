"""The literature behind the numbers, and its numbering in the order it is cited."""

from __future__ import annotations

from dataclasses import dataclass, field

REFERENCES = {
    # data and study
    "study": "Vašinková M et al. 2024. Comparing deep learning performance for chronic lymphocytic leukaemia cell "
    "segmentation in brightfield microscopy images. Bioinform Biol Insights 18. doi:10.1177/11779322241272387",
    # networks
    "unet": "Ronneberger O, Fischer P, Brox T 2015. U-Net. MICCAI. doi:10.1007/978-3-319-24574-4_28",
    "unetplusplus": "Zhou Z et al. 2018. UNet++. DLMIA. doi:10.1007/978-3-030-00889-5_1",
    "manet": "Fan T et al. 2020. MA-Net. IEEE Access 8. doi:10.1109/ACCESS.2020.3025372",
    "linknet": "Chaurasia A, Culurciello E 2017. LinkNet. VCIP. doi:10.1109/VCIP.2017.8305148",
    "fpn": "Lin TY et al. 2017. Feature pyramid networks for object detection. CVPR. doi:10.1109/CVPR.2017.106",
    "deeplabv3": "Chen LC et al. 2017. Rethinking atrous convolution for semantic image segmentation. arXiv:1706.05587",
    "deeplabv3plus": "Chen LC et al. 2018. Encoder-decoder with atrous separable convolution. ECCV. "
    "doi:10.1007/978-3-030-01234-2_49",
    "pan": "Li H et al. 2018. Pyramid attention network for semantic segmentation. arXiv:1805.10180",
    "stardist": "Schmidt U et al. 2018. Cell detection with star-convex polygons. MICCAI. "
    "doi:10.1007/978-3-030-00934-2_30",
    "smp": "Iakubovskii P 2019. Segmentation Models PyTorch. github.com/qubvel-org/segmentation_models.pytorch",
    "timm": "Wightman R 2019. PyTorch image models. doi:10.5281/zenodo.4414861",
    # losses
    "dice": "Milletari F, Navab N, Ahmadi SA 2016. V-Net. 3DV. doi:10.1109/3DV.2016.79",
    "focal": "Lin TY et al. 2017. Focal loss for dense object detection. ICCV. doi:10.1109/ICCV.2017.324",
    "lovasz": "Berman M, Triki AR, Blaschko MB 2018. The Lovász-Softmax loss. CVPR. doi:10.1109/CVPR.2018.00464",
    "tversky": "Salehi SSM, Erdogmus D, Gholipour A 2017. Tversky loss function. MLMI. "
    "doi:10.1007/978-3-319-67389-9_44",
    # search
    "asha": "Li L et al. 2020. A system for massively parallel hyperparameter tuning. MLSys. arXiv:1810.05934",
    "tune": "Liaw R et al. 2018. Tune: a research platform for distributed model selection and training. "
    "arXiv:1807.05118",
    # scores
    "otsu": "Otsu N 1979. A threshold selection method from gray-level histograms. IEEE Trans Syst Man Cybern 9:62. "
    "doi:10.1109/TSMC.1979.4310076",
    "pq": "Kirillov A et al. 2019. Panoptic segmentation. CVPR. doi:10.1109/CVPR.2019.00963",
    # traits
    "trackmate": "Ershov D et al. 2022. TrackMate 7. Nat Methods 19:829. doi:10.1038/s41592-022-01507-1",
    # statistics
    "superplots": "Lord SJ et al. 2020. SuperPlots. J Cell Biol 219:e202001064. doi:10.1083/jcb.202001064",
    "clusters": "Cameron AC, Gelbach JB, Miller DL 2011. Robust inference with multiway clustering. J Bus Econ Stat "
    "29:238. doi:10.1198/jbes.2010.07136",
    "bland_altman": "Bland JM, Altman DG 1986. Statistical methods for assessing agreement between two methods of "
    "clinical measurement. Lancet 327:307. doi:10.1016/S0140-6736(86)90837-8",
    "ccc": "Lin LI 1989. A concordance correlation coefficient to evaluate reproducibility. Biometrics 45:255. "
    "doi:10.2307/2532051",
    "tost": "Schuirmann DJ 1987. A comparison of the two one-sided tests procedure and the power approach. "
    "J Pharmacokinet Biopharm 15:657. doi:10.1007/BF01068419",
    "holm": "Holm S 1979. A simple sequentially rejective multiple test procedure. Scand J Stat 6:65",
    "mann_whitney": "Mann HB, Whitney DR 1947. On a test of whether one of two random variables is stochastically "
    "larger than the other. Ann Math Stat 18:50. doi:10.1214/aoms/1177730491",
    "welch": "Welch BL 1947. The generalization of Student's problem when several different population variances are "
    "involved. Biometrika 34:28. doi:10.1093/biomet/34.1-2.28",
}
"""What can be cited, in the short form of a reference list."""


@dataclass
class Citations:
    """Numbers references in the order they are first cited.

    >>> cite = Citations()
    >>> cite("unet"), cite("pq", "unet"), len(cite.listed)
    (' [1]', ' [1, 2]', 2)
    """

    keys: list[str] = field(default_factory=list)

    def __call__(self, *keys: str) -> str:
        """Return " [1, 2]" for the keys; those without a reference are passed over."""
        known = [key for key in dict.fromkeys(keys) if key in REFERENCES]
        self.keys += [key for key in known if key not in self.keys]
        numbers = sorted(self.keys.index(key) + 1 for key in known)
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    @property
    def listed(self) -> tuple[str, ...]:
        """The references cited, in order."""
        return tuple(REFERENCES[key] for key in self.keys)
