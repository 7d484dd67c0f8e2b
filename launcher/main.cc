#include "launcher/command_line.h"

int main(int argc, char** argv) { return paceline::launcher::run(argc, argv); }
