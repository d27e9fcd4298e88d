extern "C" int kvbm_other_ucx() { return 1; }
