#include "apps/kvbm/cli.h"

int main(int argc, char** argv) { return kvbm::app::run_cli(argc, argv); }
